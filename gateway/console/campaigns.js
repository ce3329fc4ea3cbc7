// Campaigns: how far each is, and one from issued to redeemed, by hour, with where it will end.
import { useMemo, useState } from "preact/hooks";
import { Bar, Bars, Card, Notice, Pill, Segments, Waiting, html, useAsked } from "./ui.js";
import { Chart, hourly } from "./chart.js";
import { count, day, money, percent, rate, t } from "./i18n.js";

const ORDER = ["open", "paused", "not_yet", "over", "closed", "purged"];
const kept = (row) => row.redeemed - row.reversed;

export function Campaigns({ told, me }) {
  const asked = useAsked("/console/api/campaigns"), rows = told.campaigns ?? asked.body;
  if (!rows) return html`<${Waiting} ...${asked} />`;
  if (!rows.length) return html`<${Card}><p class="empty">${t("no_campaigns")}</p><//>`;
  return html`${me.scope && html`<p class="muted">${t("own_only")}</p>`}<div class="grid">${[...rows].sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state)).map((row) => html`<section class="card c6" key=${row.campaign}>
    <header><div><h2><a class="wrap" href=${`#/campaigns/${encodeURIComponent(row.slug)}`}>${row.title || row.slug}</a></h2><span class="muted small wrap">${row.slug} · ${money(row.value_minor, row.currency)}</span></div><${Pill} name=${row.state} /></header>
    ${row.issued !== null && html`<${Bar} share=${row.issued ? kept(row) / row.issued : 0} as="good" />`}
    <p class="num">${row.issued === null ? html`<b>${count(kept(row))}</b> ${t("redeemed")}` : html`<b>${count(kept(row))}</b> ${t("redeemed")} · ${count(row.issued)} ${t("issued")} <span class="muted">(${percent(row.issued ? kept(row) / row.issued : 0)})</span>`}</p>
    <p class="muted small">${t("window", day(row.starts_ms), day(row.ends_ms))}</p></section>`)}</div>`;
}

function Funnel({ row }) {
  const whole = row.issued ?? row.redeemed;
  const steps = [row.issued !== null && ["issued", row.issued, "accent"], ["redeemed", row.redeemed, "good"], ["reversed", row.reversed, "warn"], ["net", kept(row), "good"], row.issued !== null && ["voided", row.voided, "warn"], row.issued !== null && ["in_hand", row.issued - kept(row) - row.voided, "accent"]].filter(Boolean);
  return html`<div class="bars funnel">${steps.map(([name, n, as]) => html`<div class="row" key=${name}><span>${t(name)}</span><span class="num"><b>${count(n)}</b> <span class="muted small">${whole ? percent(n / whole) : ""}</span></span><${Bar} share=${whole ? n / whole : 0} as=${as} /></div>`)}</div>`;
}

function Forecast({ life }) {
  const { forecast, row } = life;
  if (!forecast) return html`<p class="empty">${t("no_forecast")}</p>`;
  const difference = kept(row) - forecast.even_now;
  return html`<p class="muted small">${t("pace", rate(forecast.pace_per_hour))}</p>
    <p><b>${forecast.sold_out_ms ? t("sold_out", day(forecast.sold_out_ms)) : t("by_end", count(forecast.by_end), count(row.issued - row.voided), day(row.ends_ms))}</b></p>
    <${Notice} as=${difference >= 0 ? "good" : "warn"}>${t(difference >= 0 ? "ahead" : "behind_plan", count(Math.abs(difference)), count(forecast.even_now))}<//>`;
}

export function Campaign({ inner, me }) {
  const [days, setDays] = useState("2"), hours = Number(days) * 24 + 1;
  const asked = useAsked(`/console/api/campaigns/${encodeURIComponent(inner[0])}?hours=${hours}`, 5000), life = asked.body;
  const data = useMemo(() => hourly(life?.hours ?? [], hours), [life, hours]);
  return html`<p><a href="#/campaigns">← ${t("campaigns")}</a></p>
  ${!life ? html`<${Waiting} ...${asked} />` : html`<div class="grid">
    <${Card}><header><div><h2 class="wrap">${life.row.title || life.row.slug}</h2><span class="muted small wrap">${life.row.slug} · ${money(life.row.value_minor, life.row.currency)} · ${t("window", day(life.row.starts_ms), day(life.row.ends_ms))}</span></div><${Pill} name=${life.row.state} /></header>
      ${me.scope && html`<p class="muted small">${t("own_only")}</p>`}<//>
    <${Card} title=${t("funnel")} span=${life.row.issued === null ? 12 : 7}><${Funnel} row=${life.row} /><//>
    ${life.row.issued !== null && html`<${Card} title=${t("forecast")} span=${5}><${Forecast} life=${life} /><//>`}
    <${Card} title=${t("by_hour")} more=${html`<${Segments} label=${t("by_hour")} value=${days} onPick=${setDays} options=${[["2", t("d2")], ["7", t("d7")], ["30", t("d30")], ["90", t("d90")]]} />`}>
      <${Chart} hours label=${t("by_hour")} height=${220} data=${data} series=${[{ key: "r", label: t("redeemed"), tone: "good", bars: true }, { key: "x", label: t("refused"), tone: "bad", bars: true }, { key: "v", label: t("reversed"), tone: "warn", bars: true }]} /><//>
    <${Card} title=${t("reasons")} span=${6}><${Bars} amounts=${life.reasons} empty=${t("no_refusals")} /><//>
    <${Card} title=${t("best_stores")} span=${6}><${Bars} amounts=${Object.fromEntries(life.stores)} of=${life.row.redeemed || 1} as="good" empty=${t("hours_none")} /><//>
  </div>`}`;
}
