// Follows Airflow's theme: the class of the page around this frame or, outside of a frame, the stored choice.
"use strict";
(() => {
  const root = document.documentElement;
  const outer = () => {
    try {
      return parent === window ? null : parent.document.documentElement;
    } catch {
      return null; // The frame around this one belongs to another origin.
    }
  };
  const isDark = () => {
    const host = outer();
    if (host) return host.classList.contains("dark");
    const stored = localStorage.getItem("theme");
    if (stored === "dark" || stored === "light") return stored === "dark";
    return matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const apply = () => {
    const dark = isDark();
    if (root.classList.contains("dark") === dark) return;
    root.classList.toggle("dark", dark);
    dispatchEvent(new Event("millrace:theme"));
  };
  apply();
  const host = outer();
  if (host) new MutationObserver(apply).observe(host, { attributes: true, attributeFilter: ["class"] });
  else matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
})();
