// Stores: who is connected, who scans, who refuses; and one store by till and hour.
import { useMemo, useState } from "preact/hooks";
import { Bar, Bars, Card, Pill, Segments, Stat, Table, Waiting, html, useAsked, useTick } from "./ui.js";
import { Chart, hourly } from "./chart.js";
import { ago, count, percent, rate, t } from "./i18n.js";

const share = (row) => (row.day ? row.day_refused / row.day : 0);
const Share = ({ of }) => html`<span class="mini bar wide"><i class=${of > 0.25 ? "bad" : of > 0.1 ? "warn" : "good"} style=${{ width: `${of * 100}%` }}></i></span>${percent(of)}`;

export function Stores({ told }) {
  const asked = useAsked("/console/api/stores"), rows = told.stores ?? asked.body;
  const [text, setText] = useState("");
  useTick(1000);
  if (!rows) return html`<${Waiting} ...${asked} />`;
  const wanted = text.toLowerCase(), shown = rows.filter((row) => `${row.store} ${row.title} ${row.merchant}`.toLowerCase().includes(wanted));
  const columns = [
    { key: "store", label: t("store"), of: (row) => row.title || row.store, show: (row) => html`<a href=${`#/stores/${encodeURIComponent(row.store)}`} class="wrap">${row.title || row.store}</a><span class="sub wrap wide">${row.store} · ${row.merchant}</span><span class="sub narrow">${t("of", row.tills, row.enrolled)} · ${ago(row.last_ms)}</span>` },
    { key: "tills", label: t("tills"), num: true, wide: true, of: (row) => row.tills, show: (row) => html`<span class=${row.tills < row.enrolled ? "muted" : ""}>${t("of", row.tills, row.enrolled)}</span>${row.locked ? html` <span class="pill bad">${row.locked} ${t("locked")}</span>` : null}` },
    { key: "last", label: t("last_scan"), num: true, wide: true, of: (row) => row.last_ms, show: (row) => ago(row.last_ms) },
    { key: "rate", label: t("per_minute"), num: true, of: (row) => row.per_minute, show: (row) => count(row.per_minute) },
    { key: "day", label: t("day"), num: true, wide: true, of: (row) => row.day, show: (row) => count(row.day) },
    { key: "share", label: t("refused_share"), num: true, of: share, show: (row) => (row.day ? html`<${Share} of=${share(row)} />` : "–") },
  ];
  return html`<${Card}><div><label>${t("filter")}<input type="search" value=${text} onInput=${(event) => setText(event.target.value)} /></label></div>
    <${Table} columns=${columns} rows=${shown} first=${["rate", true]} go=${(row) => row.store} label=${t("stores")} empty=${t("no_stores")} /><//>`;
}

export function Store({ inner }) {
  const [days, setDays] = useState("2"), hours = Number(days) * 24 + 1;
  const asked = useAsked(`/console/api/stores/${encodeURIComponent(inner[0])}?hours=${hours}`, 5000);
  const data = useMemo(() => hourly(asked.body?.hours ?? [], hours), [asked.body, hours]);
  const life = asked.body;
  useTick(1000);
  const columns = [
    { key: "terminal", label: t("terminal"), of: (row) => row.terminal, show: (row) => html`<span class="num">${row.terminal}</span><span class="sub wrap">${row.label}</span>` },
    { key: "state", label: t("state"), of: (row) => row.state, show: (row) => html`<${Pill} name=${row.state} /> <span class="sub">${row.state === "enrolled" ? (row.connected ? t("connected") : t("away")) : ""}</span>` },
    { key: "last", label: t("last_scan"), num: true, wide: true, of: (row) => row.last_ms, show: (row) => ago(row.last_ms) },
    { key: "redeemed", label: t("redeemed"), num: true, of: (row) => row.redeemed, show: (row) => count(row.redeemed) },
    { key: "refused", label: t("refused"), num: true, of: (row) => row.refused, show: (row) => count(row.refused) },
    { key: "reversed", label: t("reversed"), num: true, wide: true, of: (row) => row.reversed, show: (row) => count(row.reversed) },
  ];
  return html`<p><a href="#/stores">← ${t("stores")}</a></p>
  ${!life ? html`<${Waiting} ...${asked} />` : html`<div class="grid">
    <${Card}><header><div><h2 class="wrap">${life.row.title || life.row.store}</h2><span class="muted small wrap">${life.row.store} · ${t("merchant")} ${life.row.merchant}</span></div></header><//>
    <${Stat} label=${t("tills")} value=${t("of", life.row.tills, life.row.enrolled)} note="" />
    <${Stat} label=${t("per_minute")} value=${rate(life.row.per_minute)} note=${ago(life.row.last_ms)} />
    <${Stat} label=${t("day")} value=${count(life.row.day)} note="" />
    <${Stat} label=${t("refused_share")} value=${life.row.day ? percent(share(life.row)) : "–"} note=${t("day")} />
    <${Card} title=${t("by_hour")} span=${8} more=${html`<${Segments} label=${t("by_hour")} value=${days} onPick=${setDays} options=${[["2", t("d2")], ["7", t("d7")], ["30", t("d30")]]} />`}>
      <${Chart} hours label=${t("by_hour")} data=${data} series=${[{ key: "r", label: t("redeemed"), tone: "good", bars: true }, { key: "x", label: t("refused"), tone: "bad", bars: true }]} /><//>
    <${Card} title=${t("reasons")} span=${4}><${Bars} amounts=${life.reasons} empty=${t("no_refusals")} /><//>
    <${Card} title=${t("terminal")}><${Table} columns=${columns} rows=${life.tills} first=${["terminal", false]} go=${(row) => row.terminal} label=${t("terminal")} empty="–" /><//>
  </div>`}`;
}
