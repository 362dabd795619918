// Draws the charts of the health page, and again each minute, in the colours of the theme.
(() => {
  const section = document.querySelector("[data-charts]");
  // As the browser works it out: a canvas knows no variables.
  const probe = section.appendChild(document.createElement("span"));
  const colour = (name) => {
    probe.style.color = `var(--tblr-${name})`;
    return getComputedStyle(probe).color;
  };
  // Chart → its series: key, label, colour.
  const charts = {
    rates: [["accepted", "accepted", "blue"], ["sent", "sent", "green"]],
    times: [["p50", "median", "blue"], ["p95", "95 % within", "orange"]],
    waiting: [["waiting", "waiting", "purple"]],
  };
  const short = (value) => (value == null ? "–" : value >= 100 ? value.toFixed(0) : String(+value.toPrecision(2)));
  // Times as the page has them: in the service's zone, whatever that of the browser is.
  const zone = section.dataset.zone;
  const parts = new Intl.DateTimeFormat("en-CA", {
    timeZone: zone, hourCycle: "h23", year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit",
  });
  const moment = (at) => {
    const { year, month, day, hour, minute } = Object.fromEntries(parts.formatToParts(at * 1000).map((one) => [one.type, one.value]));
    return { day: `${year}-${month}-${day}`, time: `${hour}:${minute}` };
  };
  const tick = (at) => {
    const { day, time } = moment(at);
    return time === "00:00" ? day.slice(5) : time;
  };
  // A value between two that are not known has no line: it is a dot.
  const alone = (plot, series) => plot.data[series].flatMap((value, place, all) =>
    (value != null && all[place - 1] == null && all[place + 1] == null ? [place] : []));
  const drawn = {};
  let span = "1h";

  const draw = (name, data) => {
    const box = section.querySelector(`[data-chart=${name}]`);
    const series = charts[name];
    const axis = { stroke: colour("secondary"), grid: { stroke: colour("border-color"), width: 1 }, ticks: { show: false } };
    drawn[name]?.destroy();
    drawn[name] = new uPlot({
      width: box.clientWidth,
      height: 180,
      legend: { show: true, live: true },
      cursor: { y: false },
      scales: { y: { range: (_, low, high) => [0, Math.max(high || 0, 1) * 1.1] } },
      tzDate: (at) => uPlot.tzDate(new Date(at * 1000), zone),
      axes: [{ ...axis, values: (_, ticks) => ticks.map(tick) }, { ...axis, size: 48, values: (_, ticks) => ticks.map(short) }],
      series: [
        { value: (_, at) => (at == null ? "" : Object.values(moment(at)).join(" ")), label: "at" },
        ...series.map(([, label, name]) => ({
          label, stroke: colour(name), width: 2, spanGaps: false, points: { show: true, size: 6, filter: alone }, value: (_, value) => short(value),
        })),
      ],
    }, [data.time, ...series.map(([key]) => data[key])], box);
    const last = series.map(([key, label]) => `${label} ${short(data[key].findLast((value) => value != null))}`);
    section.querySelector(`[data-latest=${name}]`).textContent = `Last: ${last.join(", ")}`;
  };

  const load = async () => {
    const answer = await fetch(`${section.dataset.charts}?span=${span}`);
    if (!answer.ok || answer.redirected) return;
    const data = await answer.json();
    for (const name of Object.keys(charts)) draw(name, data);
  };

  section.addEventListener("click", (event) => {
    const button = event.target.closest("[data-span]");
    if (!button) return;
    span = button.dataset.span;
    section.querySelectorAll("[data-span]").forEach((each) => each.setAttribute("aria-pressed", each === button));
    load();
  });
  let later;
  addEventListener("resize", () => { clearTimeout(later); later = setTimeout(load, 200); });
  new MutationObserver(load).observe(document.documentElement, { attributeFilter: ["data-bs-theme"] });
  setInterval(load, 60_000);
  load();
})();
