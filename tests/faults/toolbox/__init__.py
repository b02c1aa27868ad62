"""What the faults are made with: servers that may die, proxies that hold a moment, a drain to kill, and the audit."""
