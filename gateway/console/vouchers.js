// One voucher: found by number, code or redemption id; its life; reverse and void, each asked twice.
import { useEffect, useState } from "preact/hooks";
import { ask, newId } from "./api.js";
import { Card, Dialog, Facts, Notice, Pill, html, tone } from "./ui.js";
import { count, language, moment, t, word } from "./i18n.js";

const asFound = (text) => (/^\d{1,10}-\d{1,13}$/.test(text) ? { voucher_id: text } : /^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$/i.test(text) ? { redemption_id: text } : { code: text });

export function Vouchers({ inner, me }) {
  const [text, setText] = useState(""), [life, setLife] = useState(null), [fault, setFault] = useState(""), [busy, setBusy] = useState(false);
  const byNumber = me.screens.includes("campaigns");
  const find = async (named) => {
    setBusy(true); setFault("");
    try {
      const found = await ask("/console/api/vouchers", named);
      setLife(found); setText("");
      if (byNumber) history.replaceState(null, "", `#/vouchers/${found.voucher_id}`);
    } catch (problem) { setLife(null); setFault(problem.code ? problem.message : t("unreachable")); }
    setBusy(false);
  };
  useEffect(() => { if (inner.length && life?.voucher_id !== inner[0]) find({ voucher_id: inner[0] }); }, [inner.join()]);
  return html`<${Card}><form class="search" onSubmit=${(event) => { event.preventDefault(); const given = text.trim(); find(byNumber ? asFound(given) : { redemption_id: given }); }}>
      <label>${t(byNumber ? "find_voucher" : "find_redemption")}<input name="voucher" autocomplete="off" spellcheck=${false} required value=${text} onInput=${(event) => setText(event.target.value)} /></label>
      <button class="primary" type="submit" disabled=${busy}>${t("find")}</button></form>
    ${byNumber && html`<p class="muted small">${t("code_note")}</p>`}
    ${fault && html`<${Notice} as="bad">${fault}<//>`}<//>
  ${life && html`<${Life} key=${life.voucher_id} life=${life} me=${me} again=${() => find(byNumber ? { voucher_id: life.voucher_id } : { redemption_id: life.reversible_id || life.events[0].redemption_id })} />`}`;
}

function Life({ life, me, again }) {
  const [asking, setAsking] = useState(""), [said, setSaid] = useState(null), [found, setFound] = useState(null), [looking, setLooking] = useState(false);
  const known = new Set(life.events.map((event) => event.position));
  const more = (found?.events ?? []).filter((event) => !known.has(event.position));
  const events = [...life.events, ...more].sort((a, b) => a.at_ms - b.at_ms);
  const look = async () => {
    setLooking(true);
    try {
      const next = await ask("/console/api/vouchers/attempts", { voucher_id: life.voucher_id, before_seq: found ? found.from_seq : 0 });
      setFound((old) => ({ ...next, to_seq: old?.to_seq ?? next.to_seq, events: [...(old?.events ?? []), ...next.events] }));
    } catch (problem) { setSaid({ as: "bad", text: problem.message || t("unreachable") }); }
    setLooking(false);
  };
  const done = (outcome) => { setAsking(""); setSaid(outcome); again(); };
  return html`<div class="grid">
    <${Card} span=${5}><header><h2 class="num">${life.voucher_id}</h2><${Pill} name=${life.state} as=${life.state === "unused" ? "accent" : tone(life.state)} /></header>
      <${Facts} rows=${[[t("campaign"), html`<span class="wrap">${life.campaign}</span>`], [t("kind"), word(life.kind)], [t("issued_by"), html`<span class="mono">${life.issued_by || "–"}</span>`], [t("partition"), `${life.partition} (${count(life.head_seq)})`], life.reversible_id && [t("reversible_until"), moment(life.reversible_until_ms)]]} />
      ${said && html`<${Notice} as=${said.as}>${said.text}<//>`}
      <div class="actions">
        ${life.may_void && me.deeds.includes("void") && html`<button type="button" class="danger" onClick=${() => setAsking("void")}>${t("void")} …</button>`}
        ${life.reversible_id && me.deeds.includes("reverse") && html`<button type="button" class="danger" onClick=${() => setAsking("reverse")}>${t("reverse")} …</button>`}</div><//>
    <${Card} title=${t("life")} span=${7}>
      ${events.length ? html`<ol class="life">${events.map((event) => html`<${Deed} key=${event.position} event=${event} me=${me} />`)}</ol>` : html`<p class="empty">${t("nothing_yet")}</p>`}
      ${found && html`<p class="muted small">${t("attempts_range", count(found.from_seq), count(found.to_seq))} ${!more.length && found.since_ms ? t("attempts_none", moment(found.since_ms)) : ""}</p>`}
      ${me.screens.includes("campaigns") && (!found || found.from_seq > 1) && html`<div><button type="button" disabled=${looking} onClick=${look}>${looking ? t("loading") : t(found ? "attempts_more" : "attempts")}</button></div>`}<//>
    ${asking && html`<${Ask} deed=${asking} life=${life} onDone=${done} onClose=${() => setAsking("")} />`}</div>`;
}

function Deed({ event, me }) {
  const outcome = event.verdict === "accepted" ? { redeem: "redeemed", reverse: "reversed", void: "voided", import: "imported" }[event.op] ?? event.verdict : event.verdict;
  const [partition, seq] = event.position.split(":");
  return html`<li class=${tone(outcome)}><div><b>${word(outcome)}</b>
    <div class="muted small">${moment(event.at_ms)}${event.store && html` · <span class="wrap">${event.store}</span> · ${t("terminal")} ${event.terminal}`}${event.said && html` · ${event.said}`}</div>
    ${event.reason && html`<div class="wrap">“${event.reason}”</div>`}
    <div class="muted small mono wrap">${me.screens.includes("events") ? html`<a href=${`#/events/${partition}/${seq}`}>${event.position}</a>` : event.position}${event.redemption_id && ` · ${event.redemption_id}`}</div></div></li>`;
}

function Ask({ deed, life, onDone, onClose }) {
  const [reason, setReason] = useState(""), [busy, setBusy] = useState(false), [fault, setFault] = useState(""), [id] = useState(newId); // one id, however often it is sent
  const send = async (event) => {
    event.preventDefault();
    setBusy(true); setFault("");
    try {
      const answer = deed === "void" ? await ask("/v1/vouchers/void", { voucher_id: life.voucher_id, reason, request_id: id })
        : await ask(`/v1/redemptions/${life.reversible_id}/reversal`, { reversal_id: id, reason, reversed_ms: Date.now() });
      const good = answer.verdict === (deed === "void" ? "voided" : "reversed");
      onDone(good ? { as: "good", text: t(`done_${deed}`) } : { as: "warn", text: t("said_no", (language === "zh" ? answer.text_zh : answer.text_en) || word(answer.verdict)) });
    } catch (problem) { setFault(problem.code === 503 || !problem.code ? t("unsure") : problem.message); setBusy(false); }
  };
  return html`<${Dialog} onClose=${onClose}><form onSubmit=${send}><h2 id="dialog-title">${t(`${deed}_title`, life.voucher_id)}</h2><p>${t(`${deed}_text`)}</p>
    <label>${t("reason")}<textarea name="reason" required maxlength="200" value=${reason} onInput=${(event) => setReason(event.target.value)} autofocus></textarea></label>
    ${fault && html`<${Notice} as="bad">${fault}<//>`}
    <div class="actions"><button type="button" onClick=${onClose}>${t("keep")}</button><button type="submit" class="danger" disabled=${busy || !reason.trim()}>${t(deed)}</button></div></form><//>`;
}
