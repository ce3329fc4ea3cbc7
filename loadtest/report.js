// Values under the pointer, or under the arrow keys: everything it shows is on the page without it, too.
const space = "http://www.w3.org/2000/svg";
for (const store of document.querySelectorAll("script[type='application/json']")) {
  const told = JSON.parse(store.textContent);
  for (const svg of document.querySelectorAll(`svg[data-hover="${store.dataset.of}"]`)) watch(svg, told);
}

function watch(svg, told) {
  if (!told.xs.length) return;
  const left = +svg.dataset.left, right = +svg.dataset.right;
  const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
  const hair = document.createElementNS(space, "path");
  const box = document.createElement("div");
  let at = 0;
  hair.setAttribute("class", "hair");
  box.className = "readout";
  svg.tabIndex = 0;

  const show = (number) => {
    at = Math.max(0, Math.min(told.xs.length - 1, number));
    const x = left + told.xs[at] * (right - left);
    hair.setAttribute("d", `M${x} 14V${height - 28}`);
    svg.append(hair);
    const title = document.createElement("b");
    title.textContent = told.words[at];
    box.replaceChildren(title, ...told.rows.map(([style, name, values]) => {
      const row = document.createElement("span"), mark = document.createElement("i"), value = document.createElement("em");
      mark.className = style;
      value.textContent = values[at];
      row.append(mark, name, value);
      return row;
    }));
    svg.parentElement.append(box);
    const across = (x / width) * svg.clientWidth;
    const most = svg.clientWidth - box.offsetWidth;
    const beside = across + 14 > most ? across - 14 - box.offsetWidth : across + 14;
    box.style.left = `${Math.max(0, Math.min(most, beside))}px`;
  };
  const hide = () => { hair.remove(); box.remove(); };
  const follow = (event) => {
    const frame = svg.getBoundingClientRect();
    const share = (((event.clientX - frame.left) / frame.width) * width - left) / (right - left);
    let best = 0;
    for (let number = 1; number < told.xs.length; number++) {
      if (Math.abs(told.xs[number] - share) < Math.abs(told.xs[best] - share)) best = number;
    }
    show(best);
  };
  svg.addEventListener("pointermove", follow);
  svg.addEventListener("pointerdown", follow);
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) show(at); });
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -told.xs.length, End: told.xs.length }[event.key];
    if (event.key === "Escape") hide();
    if (step === undefined) return;
    event.preventDefault();
    show(at + step);
  });
}
