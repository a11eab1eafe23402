// Day and night, and copying the methods paragraph.
(() => {
  "use strict";
  const night = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => { try { return localStorage.getItem("study-theme"); } catch { return null; } };
  const paint = (theme) => { document.documentElement.dataset.theme = theme; };
  paint(chosen() || (night.matches ? "dark" : "light"));
  document.querySelector("#theme").addEventListener("click", () => {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    paint(theme);
    try { localStorage.setItem("study-theme", theme); } catch { /* for this page only */ }
  });
  document.querySelector("#copy")?.addEventListener("click", async (event) => {
    const text = document.querySelector("#methods-text");
    try {
      await navigator.clipboard.writeText(text.textContent);
      event.target.textContent = "Copied";
      setTimeout(() => { event.target.textContent = "Copy this paragraph"; }, 1400);
    } catch { getSelection().selectAllChildren(text); }
  });
})();
