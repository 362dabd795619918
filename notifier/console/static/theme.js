// Before the page is drawn: light or dark, as was chosen, or as the system is.
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => localStorage.getItem("notifier-theme") || (system.matches ? "dark" : "light");
  const draw = () => document.documentElement.setAttribute("data-bs-theme", chosen());
  system.addEventListener("change", draw);
  draw();
  addEventListener("click", (event) => {
    if (!event.target.closest("[data-theme-switch]")) return;
    localStorage.setItem("notifier-theme", chosen() === "dark" ? "light" : "dark");
    draw();
  });
})();
