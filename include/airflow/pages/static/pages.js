// Draws the charts, refreshes the numbers, and opens pages of Airflow outside of this frame.
"use strict";
(() => {
  const EVERY_MS = 5000;
  const LIGHT = ["#0b63b5", "#b3470b", "#0b7a5b", "#8a3b8f", "#7a6200", "#b0236b"];
  const DARK = ["#6cb2ff", "#ff9d5c", "#4fd1a5", "#d99be0", "#e0c34a", "#ff8fc0"];
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x"];
  const isInFrame = parent !== window;
  const main = document.getElementById("main");

  // Charts

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const traces = (chart, colours) => {
    let next = 0;
    return chart.series.flatMap((series) => {
      const number = next++;
      const own = series.is_quiet ? colour("--muted") : colours[number % colours.length];
      const line = {
        type: "scatter", mode: chart.places.length > 80 ? "lines" : "lines+markers", name: series.name, x: chart.places,
        y: series.values, connectgaps: false,
        line: { color: own, width: series.is_quiet ? 1.5 : 2, dash: series.is_quiet ? "dot" : "solid", shape: series.is_step ? "hv" : "linear" },
        marker: { size: 6, symbol: SYMBOLS[number % SYMBOLS.length], color: own },
      };
      if (series.low.length && !series.is_quiet) {
        const reach = (bounds, sign) => series.values.map((value, at) => (value === null || bounds[at] === null ? 0 : sign * (bounds[at] - value)));
        line.error_y = { type: "data", symmetric: false, array: reach(series.high, 1), arrayminus: reach(series.low, -1), thickness: 1, width: 2, color: own };
      }
      return [line];
    });
  };

  const draw = (element) => {
    const text = element.dataset.chart;
    const dark = document.documentElement.classList.contains("dark");
    const look = `${dark}${text}`;
    if (!window.Plotly || element.drawn === look) return;
    element.drawn = look;
    const chart = JSON.parse(text);
    const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), zeroline: false, automargin: true };
    const marks = Object.entries(chart.marks);
    Plotly.react(element, traces(chart, dark ? DARK : LIGHT), {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true,
      font: { color: colour("--muted"), size: 12, family: "Inter, system-ui, sans-serif" },
      margin: { l: 52, r: 8, t: 8, b: 40 }, showlegend: chart.series.length > 1,
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 } },
      xaxis: { ...axis, type: chart.time ? "date" : "category", nticks: 7, title: { text: chart.x, standoff: 6 } },
      // Not "power": its superscripts have inline styles, which the content security policy forbids.
      yaxis: { ...axis, type: chart.log ? "log" : "linear", title: { text: chart.y, standoff: 6 }, rangemode: chart.time ? "tozero" : "normal", exponentformat: chart.log ? "e" : "none", separatethousands: true },
      shapes: marks.map(([x]) => ({ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { color: colour("--good"), width: 1, dash: "dash" } })),
      hovermode: "x unified", hoverlabel: { bgcolor: colour("--raised"), font: { color: colour("--text") }, bordercolor: colour("--line") },
    }, { displayModeBar: false, responsive: true });
  };

  // The library is loaded after the page, which is usable without it.
  let isAsked = false;
  const drawAll = () => {
    const all = document.querySelectorAll("[data-chart]");
    if (all.length && !isAsked) {
      isAsked = true;
      const script = document.createElement("script");
      script.src = main.dataset.charts;
      script.addEventListener("load", drawAll);
      document.head.append(script);
    }
    all.forEach(draw);
  };
  addEventListener("millrace:theme", drawAll);

  // Refreshing

  const freshness = document.getElementById("freshness");
  const served = new Map();
  const remember = () => document.querySelectorAll("[data-part]").forEach((part) => served.set(part.id, part.innerHTML));
  const ids = (root) => [...root.querySelectorAll("[data-part], [data-chart]")].map((each) => each.id).join(" ");

  const isInUse = (part) => {
    const active = document.activeElement;
    return part.querySelector("dialog[open]") !== null || (part.contains(active) && active.matches("input, select, textarea"));
  };

  const replace = (part, html) => {
    const open = [...part.querySelectorAll("details")].map((each) => [each.id, each.open]);
    const scrolled = [...part.querySelectorAll(".scroll")].map((each) => [each.scrollLeft, each.scrollTop]);
    const focusable = "a, button, summary, [tabindex]";
    const focused = [...part.querySelectorAll(focusable)].indexOf(document.activeElement);
    part.innerHTML = html;
    for (const [id, isOpen] of open) {
      const found = document.getElementById(id);
      if (found) found.open = isOpen;
    }
    part.querySelectorAll(".scroll").forEach((each, at) => {
      if (scrolled[at]) [each.scrollLeft, each.scrollTop] = scrolled[at];
    });
    if (focused >= 0) part.querySelectorAll(focusable)[focused]?.focus({ preventScroll: true });
  };

  const refresh = async () => {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (answer.status === 401) return false;
    if (!answer.ok) throw new Error(String(answer.status));
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("main");
    if (!fresh) throw new Error("no main");
    if (ids(fresh) !== ids(main)) {
      // A panel appeared or went away.
      if (!isInUse(main)) {
        replace(main, fresh.innerHTML);
        served.clear();
        remember();
      }
    } else {
      for (const part of fresh.querySelectorAll("[data-part]")) {
        const own = document.getElementById(part.id);
        if (served.get(part.id) === part.innerHTML || isInUse(own)) continue;
        served.set(part.id, part.innerHTML);
        replace(own, part.innerHTML);
      }
      for (const chart of fresh.querySelectorAll("[data-chart]")) {
        const own = document.getElementById(chart.id);
        if (own.dataset.chart === chart.dataset.chart) continue;
        own.dataset.chart = chart.dataset.chart;
        const table = document.querySelector(`#${CSS.escape(chart.id)}-table tbody`);
        const rows = fresh.querySelector(`#${CSS.escape(chart.id)}-table tbody`);
        if (table && rows) table.innerHTML = rows.innerHTML;
      }
    }
    drawAll();
    return true;
  };

  let timer = 0;
  const later = () => {
    clearTimeout(timer);
    timer = document.hidden ? 0 : setTimeout(tick, EVERY_MS);
  };
  const tick = async () => {
    try {
      if (!(await refresh())) {
        freshness.textContent = "You are signed out. Reload the page to sign in.";
        return;
      }
      if (freshness.textContent) freshness.textContent = "";
    } catch {
      freshness.textContent = "These numbers are not current: Airflow does not answer.";
    }
    later();
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else tick();
  });

  // Links to Airflow's own pages: its frame forbids this one to navigate the window, so the outer page follows them.

  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[data-top]");
    if (!link || !isInFrame || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    const outer = parent.document.createElement("a");
    outer.href = link.href;
    parent.document.body.append(outer);
    outer.click();
    outer.remove();
  });

  // In Airflow a click on the entry of the navigation that is open does nothing. Here it leads back to its first page.

  const backToFirst = (event) => {
    const link = event.target.closest?.("a[href]");
    const entry = link && /\/plugin\/millrace-(models|streams)$/.exec(link.pathname);
    if (!entry || link.pathname !== parent.location.pathname || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
    location.href = main.dataset.root + entry[1];
  };
  if (isInFrame) {
    parent.document.addEventListener("click", backToFirst);
    addEventListener("pagehide", () => parent.document.removeEventListener("click", backToFirst));
  }

  remember();
  drawAll();
  later();
})();
