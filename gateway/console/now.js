// Now: is it well, how much is going on, how fast is it, and why are scans refused.
import { useEffect, useMemo, useState } from "preact/hooks";
import { Bar, Bars, Card, Notice, Stat, Waiting, html, useAsked } from "./ui.js";
import { Chart } from "./chart.js";
import { count, ms, percent, rate, t } from "./i18n.js";

const KEPT = 300;

// Seconds by their number; the newest telling of a second wins.
export function merged(old, fresh, key = (row) => row[0]) {
  const rows = new Map(old.map((row) => [key(row), row]));
  for (const row of fresh) rows.set(key(row), row);
  return [...rows.values()].sort((a, b) => key(a) - key(b)).slice(-KEPT);
}

export function Now({ told }) {
  const first = useAsked("/console/api/now"), now = told.now ?? first.body;
  const [seconds, setSeconds] = useState([]);
  useEffect(() => { if (first.body) setSeconds((old) => merged(first.body.seconds, old)); }, [first.body]);
  useEffect(() => { if (told.now) setSeconds((old) => merged(old, told.now.seconds)); }, [told.now]);
  const whole = seconds.slice(0, -1); // the last one is still growing
  const curve = useMemo(() => [whole.map((row) => row[0]), whole.map((row) => row[1]), whole.map((row) => row[2])], [seconds]);
  const times = useMemo(() => [whole.map((row) => row[0]), whole.map((row) => row[5] || null), whole.map((row) => row[4] || null)], [seconds]);
  if (!now) return html`<${Waiting} ...${first} />`;
  const minute = whole.slice(-60), of = (row) => row[1] + row[2];
  const average = minute.length ? minute.reduce((sum, row) => sum + of(row), 0) / minute.length : 0;
  const last = whole.at(-1), timed = [...whole].reverse().find((row) => row[5]);
  const refused = minute.reduce((sum, row) => sum + row[2], 0), scans = minute.reduce((sum, row) => sum + of(row), 0);
  const timing = now.shares.length > 0;
  return html`
  ${!now.ready && html`<${Notice} as="bad"><div><b>${now.draining ? t("draining") : t("not_ready")}</b>${now.troubles.map((text) => html`<div class="wrap" key=${text}>${text}</div>`)}</div><//>`}
  <div class="grid">
    <${Stat} label=${t("scans_s")} value=${rate(last ? of(last) : 0)} note=${t("minute_avg", rate(average))} />
    ${timing ? html`<${Stat} label=${t("p99")} value=${timed ? ms(timed[5]).split(" ")[0] : "–"} unit=${timed && ms(timed[5]).split(" ")[1]} note=${timed ? t("p50_is", ms(timed[4])) : ""} />` : null}
    <${Stat} label=${t("refused_share")} value=${scans ? percent(refused / scans) : "–"} note=${t("of_minute", count(scans))} />
    <${Stat} label=${t("tills")} value=${count(now.tills)} note=${timing ? t("unresolved_n", count(now.unresolved)) : ""} />
    <${Card} title=${`${t("scans_s")} · ${t("five_minutes")}`} span=${timing ? 8 : 12}>
      <${Chart} label=${t("scans_s")} data=${curve} show=${rate} height=${timing ? 270 : 220} series=${[{ key: "redeemed", label: t("redeemed"), tone: "good" }, { key: "refused", label: t("refused"), tone: "bad" }]} /><//>
    ${timing && html`<${Card} title=${t("health")} span=${4}>
      ${now.ready ? html`<${Notice} as="good">${t("all_well")}<//>` : html`<${Notice} as="bad">${t("not_ready")}<//>`}
      ${now.behind > 2 && html`<p class="muted small">${t("behind", count(now.behind))}</p>`}
      <h3 class="muted small">${t("budget")}</h3>
      <div class="bars">${now.shares.map((share) => html`<div class="row" key=${share.name}><span>${t(share.name)} <span class="muted small">${t("goal", percent(share.objective, 2))}</span></span>
        <b class="num">${share.left === null ? "–" : percent(share.left, 0)}</b><${Bar} share=${share.left === null ? 0 : share.left < 0 ? 1 : share.left} as=${share.left === null ? "" : share.left < 0 ? "bad" : share.left < 0.25 ? "warn" : "good"} />
        <span class="muted small">${share.left === null ? t("too_few") : t("bad_of", count(share.bad), count(share.answers))}</span></div>`)}</div><//>`}
    ${timing && html`<${Card} title=${`${t("latency")} · ${t("five_minutes")}`} span=${8}>
      <${Chart} label=${t("latency")} data=${times} show=${ms} height=${170} series=${[{ key: "p99", label: "p99", tone: "accent" }, { key: "p50", label: "p50", tone: "muted", fill: false }]} /><//>`}
    <${Card} title=${t("mix")} span=${timing ? 4 : 12}><${Bars} amounts=${now.mix} empty=${t("quiet")} /><//>
  </div>`;
}
