// Curves: uPlot in the page's own colours, with the value under the cursor told in words below.
import { useEffect, useRef, useState } from "preact/hooks";
import { html } from "./ui.js";
import { clock, count, day, language } from "./i18n.js";

function colour(name) {
  const probe = document.createElement("i");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
const faded = (text, share) => text.replace(/^rgba?\(([^)]+)\)$/, (_, parts) => `rgba(${parts.split(",").slice(0, 3).join(",")},${share})`);

// series: [{key, label, tone, fill, bars}], data: [xs (seconds), ys, ys, ...]. `show` tells a value.
export function Chart({ series, data, height = 190, show = count, label, hours = false, axes = true }) {
  const at = useRef(), plot = useRef(), [cursor, setCursor] = useState(null), [theme, setTheme] = useState(0);
  useEffect(() => {
    const changed = () => setTheme((n) => n + 1), media = matchMedia("(prefers-color-scheme: dark)"), watch = new MutationObserver(changed);
    media.addEventListener("change", changed);
    watch.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    return () => { media.removeEventListener("change", changed); watch.disconnect(); };
  }, []);
  useEffect(() => {
    const muted = colour("muted"), line = colour("line");
    const axis = { stroke: muted, font: "12px system-ui, sans-serif", grid: { stroke: line, width: 1 }, ticks: { show: false }, border: { show: false } };
    const when = (seconds) => (hours ? day(seconds * 1000) : clock(seconds * 1000));
    const drawn = new uPlot({
      width: at.current.clientWidth, height, padding: [10, 8, 0, 0], legend: { show: false },
      cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
      scales: { x: { time: true, range: (_, low, high) => [low, hours ? high + 3600 : high] }, y: { range: (_, low, high) => [0, Math.max(high * 1.12, 1)] } },
      axes: axes ? [{ ...axis, grid: { show: false }, size: 30, space: hours ? 110 : 90, values: (_, ticks) => ticks.map(when) }, { ...axis, size: 52, space: 34, values: (_, ticks) => ticks.map(show) }] : [{ show: false }, { show: false }],
      series: [{}, ...series.map(({ label, tone, fill = true, bars }) => ({
        label, stroke: colour(tone), width: bars ? 0 : 1.75, points: { show: false },
        fill: bars ? faded(colour(tone), 0.85) : fill ? faded(colour(tone), 0.13) : undefined,
        paths: bars ? uPlot.paths.bars({ size: [0.78, 26], align: 1, radius: 0.12 }) : undefined,
      }))],
      hooks: { setCursor: [(u) => setCursor(u.cursor.idx ?? null)] },
    }, data, at.current);
    plot.current = drawn;
    const box = at.current, resize = new ResizeObserver(() => box.clientWidth && drawn.setSize({ width: box.clientWidth, height }));
    resize.observe(box);
    return () => { resize.disconnect(); drawn.destroy(); };
  }, [theme, language, hours, axes, height, series.map((one) => one.key + one.tone).join()]);
  useEffect(() => { plot.current?.setData(data); }, [data]);
  const last = data[0].length - 1, shown = cursor === null || cursor > last ? last : cursor;
  const told = (n) => (n === null || n === undefined ? "–" : show(n));
  return html`<div><div class="chart" ref=${at} role="img" aria-label=${label}></div>
    ${axes && last >= 0 && html`<div class="legend">${series.map((one, n) => html`<span class=${`key ${one.tone === "good" ? "redeemed" : one.tone === "bad" ? "refused" : one.tone === "warn" ? "reversed" : one.tone}`} key=${one.key}>${one.label} <b>${told(data[n + 1][shown])}</b></span>`)}
      <span>${hours ? day(data[0][shown] * 1000) : clock(data[0][shown] * 1000)}</span></div>`}</div>`;
}

// Redemptions and refusals by hour, the gaps filled: a quiet hour is a fact, not a missing point.
export function hourly(rows, count) {
  const HOUR = 3600, last = Math.floor(Date.now() / 1000 / HOUR) * HOUR, first = last - (count - 1) * HOUR;
  const found = new Map(rows.map((row) => [row[0] / 1000, row]));
  const xs = Array.from({ length: count }, (_, n) => first + n * HOUR);
  return [xs, ...[1, 2, 3].map((at) => xs.map((x) => found.get(x)?.[at] ?? 0))];
}
