// The event stream: the live tail with filters and pause, and one batch of the log by its position.
import { useEffect, useRef, useState } from "preact/hooks";
import { Card, Facts, Notice, Pill, Waiting, html, useAsked } from "./ui.js";
import { clock, count, moment, t, word } from "./i18n.js";

const SHOWN_MAX = 200;
const OPS = ["redeem", "reverse", "void", "import"], VERDICTS = ["accepted", "refused", "already_redeemed", "unknown_code", "unreadable", "not_eligible", "expired", "closed", "paused", "terminal_locked", "conflict"];
const outcome = (event) => (event.verdict === "accepted" ? { redeem: "redeemed", reverse: "reversed", void: "voided", import: "imported" }[event.op] ?? event.verdict : event.verdict);

export function Row({ event, me }) {
  const [partition, seq] = event.position.split(":");
  return html`<div class="row"><time class="muted num" dateTime=${new Date(event.at_ms).toISOString()}>${clock(event.at_ms)}</time>
    <span>${event.verdict ? html`<${Pill} name=${outcome(event)} />` : html`<span class="pill accent">${event.op.replaceAll("_", " ")}</span>`}</span>
    <span class="about wrap">${event.verdict ? html`${event.voucher_id ? (me.screens.includes("vouchers") ? html`<a class="num" href=${`#/vouchers/${event.voucher_id}`}>${event.voucher_id}</a>` : html`<span class="num">${event.voucher_id}</span>`) : null} ${event.campaign} ${event.store && html`<span class="muted">· ${event.store} · ${t("terminal")} ${event.terminal}</span>`}${event.reason && html` <span class="muted">“${event.reason}”</span>`}` : event.said}</span>
    <a class="mono num" href=${`#/events/${partition}/${seq}`} title=${t("position")}>${event.position}</a></div>`;
}

export function Events({ told, me, setQuery }) {
  const [rows, setRows] = useState([]), [left, setLeft] = useState(0), [lost, setLost] = useState(null), [paused, setPaused] = useState(false), [filters, setFilters] = useState({ op: "", verdict: "", store: "", campaign: "" });
  const missed = useRef([]), asked = useRef("");
  useEffect(() => {
    if (!told.tail) return;
    if (paused) missed.current = [...told.tail.events, ...missed.current].slice(0, SHOWN_MAX);
    else setRows((old) => [...[...told.tail.events].reverse(), ...old].slice(0, SHOWN_MAX));
    setLeft((n) => n + told.tail.left_out);
  }, [told.tail]);
  useEffect(() => { if (told.lost) setLost(told.lost); }, [told.lost]);
  useEffect(() => {
    const given = Object.entries(filters).filter(([, value]) => value);
    const wanted = given.length ? "&" + new URLSearchParams(given) : "";
    if (wanted === asked.current) return undefined;
    const timer = setTimeout(() => { asked.current = wanted; setQuery(wanted); setRows([]); setLeft(0); }, 300);
    return () => clearTimeout(timer);
  }, [JSON.stringify(filters)]);
  const change = (name) => (event) => setFilters((old) => ({ ...old, [name]: event.target.value.trim() }));
  const toggle = () => { if (paused) { setRows((old) => [...[...missed.current].reverse(), ...old].slice(0, SHOWN_MAX)); missed.current = []; } setPaused(!paused); };
  return html`<${Card}><div class="filters">
      <label>${t("op")}<select onChange=${change("op")}><option value="">${t("any")}</option>${OPS.map((name) => html`<option value=${name} key=${name}>${word(name)}</option>`)}${me.screens.includes("system") && html`<option value="control">${t("control")}</option>`}</select></label>
      <label>${t("verdict")}<select onChange=${change("verdict")}><option value="">${t("any")}</option>${VERDICTS.map((name) => html`<option value=${name} key=${name}>${name === "refused" ? t("all_refused") : word(name)}</option>`)}</select></label>
      <label>${t("store")}<input onInput=${change("store")} autocomplete="off" /></label>
      <label>${t("campaign")}<input onInput=${change("campaign")} autocomplete="off" /></label>
      <div class="actions"><button type="button" aria-pressed=${String(paused)} onClick=${toggle}>${t(paused ? "resume" : "pause")}</button></div></div><//>
  ${paused && html`<${Notice} as="warn">${t("paused_n", count(missed.current.length))}<//>`}
  ${lost && html`<${Notice} as="warn">${t("lost", count(lost.events), count(lost.batches))}<//>`}
  <${Card}>${rows.length ? html`<div class="events" role="log" aria-live="off">${rows.map((event) => html`<${Row} key=${event.position} event=${event} me=${me} />`)}</div>` : html`<p class="empty">${t("waiting")}</p>`}
    ${left > 0 && html`<p class="muted small">${t("left_out", count(left))}</p>`}<//>`;
}

export function Batch({ inner, me }) {
  const [partition, seq] = inner, asked = useAsked(`/console/api/log/${encodeURIComponent(partition)}/${encodeURIComponent(seq)}`), page = asked.body;
  return html`<p><a href="#/events">← ${t("events")}</a></p>
  ${!page ? html`<${Waiting} ...${asked} />` : html`<${Card}><header><h2>${t("partition")} ${page.partition} · ${t("batch", count(page.seq), count(page.head_seq))}</h2>
      <div class="actions">${page.seq > 1 && html`<a class="button" href=${`#/events/${partition}/${page.seq - 1}`}>← ${t("older")}</a>`}${page.seq < page.head_seq && html`<a class="button" href=${`#/events/${partition}/${page.seq + 1}`}>${t("newer")} →</a>`}</div></header>
      <${Facts} rows=${[[t("made"), moment(page.at_ms)], [t("tip"), html`<span class="mono">${page.tip}</span>`], [t("prev"), html`<span class="mono">${page.prev}</span>`]]} /><//>
    <${Card}><div class="events">${page.events.map((event) => html`<${Row} key=${event.position} event=${event} me=${me} />`)}</div>${page.left_out > 0 && html`<p class="muted small">${t("rows_left", count(page.left_out))}</p>`}<//>`}`;
}
