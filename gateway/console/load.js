// Load test: what this gateway was asked and what it answered, second by second, and what that cost.
import { useEffect, useMemo, useState } from "preact/hooks";
import { Card, Stat, Waiting, html, useAsked } from "./ui.js";
import { Chart } from "./chart.js";
import { count, ms, rate, t } from "./i18n.js";
import { merged } from "./now.js";

export function Load({ told }) {
  const first = useAsked("/console/api/load"), [rows, setRows] = useState([]), key = (row) => row.at_s;
  useEffect(() => { if (first.body) setRows((old) => merged(first.body, old, key)); }, [first.body]);
  useEffect(() => { if (told.load) setRows((old) => merged(old, [told.load], key)); }, [told.load]);
  const columns = useMemo(() => Object.fromEntries(Object.keys(rows[0] ?? {}).map((name) => [name, rows.map((row) => row[name])])), [rows]);
  const xs = columns.at_s ?? [], last = rows.at(-1), some = (name) => columns[name] ?? [];
  const lost = useMemo(() => rows.map((row) => row.shed + row.unresolved), [rows]);
  if (!last) return html`<${Waiting} ...${first} />`;
  return html`<p class="muted">${t("load_note")}</p><div class="grid">
    <${Stat} label=${t("asked")} value=${rate(last.asked)} unit="/s" note=${`${t("in_flight")}: ${count(last.in_flight)}`} />
    <${Stat} label=${t("durable")} value=${rate(last.durable)} unit="/s" note=${`${t("per_batch")}: ${rate(last.per_batch)}`} />
    <${Stat} label=${t("p99")} value=${ms(last.p99_ms)} note=${t("p50_is", ms(last.p50_ms))} />
    <${Stat} label=${t("cpu")} value=${rate(last.cpu)} note=${`${t("turned_away")}: ${count(last.shed + last.unresolved)}/s`} />
    <${Card} title=${t("asked_vs")}><${Chart} label=${t("asked_vs")} height=${240} data=${[xs, some("asked"), some("durable"), lost]} show=${rate} series=${[{ key: "a", label: t("asked"), tone: "muted", fill: false }, { key: "d", label: t("durable"), tone: "good" }, { key: "l", label: t("turned_away"), tone: "bad" }]} /><//>
    <${Card} title=${t("latency")} span=${6}><${Chart} label=${t("latency")} data=${[xs, some("p99_ms"), some("p50_ms")]} show=${ms} series=${[{ key: "p99", label: "p99", tone: "accent" }, { key: "p50", label: "p50", tone: "muted", fill: false }]} /><//>
    <${Card} title=${t("cost")} span=${6}><${Chart} label=${t("cost")} data=${[xs, some("commit_p99_ms"), some("lag_p99_ms")]} show=${ms} series=${[{ key: "c", label: t("commit"), tone: "warn", fill: false }, { key: "g", label: t("loop_lag"), tone: "bad", fill: false }]} /><//>
  </div>`;
}
