// Says so when a page that refreshes itself has not been refreshed: its server hangs, is gone, or sends something else.
(() => {
  const MISSED = 20_000;
  const warning = document.querySelector("[data-stale]");
  let seen = "", since = "", at = Date.now();
  setInterval(() => {
    const time = document.querySelector("[data-as-of]");
    if (time && time.dateTime !== seen) {
      seen = time.dateTime;
      since = time.textContent;
      at = Date.now();
    }
    const isStale = Date.now() - at > MISSED;
    if (isStale === !warning.hidden) return;
    warning.querySelector("[data-stale-since]").textContent = since;
    warning.hidden = !isStale;
    document.documentElement.toggleAttribute("data-is-stale", isStale);
  }, 1000);
})();
