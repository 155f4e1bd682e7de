const shown = (n) => n.toLocaleString("en-US");
const percent = (share) => {
  const value = 100 * share;
  if (!value || value === 100) return value + " %";
  return (value >= 1 ? value.toFixed(1) : Number(value.toPrecision(2))) + " %";
};

function say(section, kept, about) {
  const rows = Number(section.dataset.rows);
  const mark = about || "estimate" in section.dataset ? "≈ " : "";
  section.querySelector(".share").textContent = mark + percent(rows ? kept / rows : 0);
  section.querySelector(".count").textContent = `keeps ${mark}${shown(Math.round(kept))} of ${shown(rows)}`;
}

function write(section, condition) {
  const text = condition ? `${section.dataset.key}: ${JSON.stringify(condition)}` : "# tick a value to keep";
  section.querySelector(".rule .line").textContent = text;
  section.querySelector(".rule .copy").dataset.copy = text;
}

/* How many rows lie below t, and how many up to it: exact at a step, between two steps half-way. */
function counts(grid, t, known) {
  let low = 0;
  let high = grid.value.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (grid.value[middle] < t) low = middle + 1;
    else high = middle;
  }
  if (grid.value[low] === t) return { below: grid.below[low], upTo: grid.upTo[low], about: false };
  const least = low ? grid.upTo[low - 1] : 0;
  const most = low < grid.value.length ? grid.below[low] : known;
  const middle = (least + most) / 2;
  return { below: middle, upTo: middle, about: least !== most };
}

function numbers(section) {
  const find = (selector) => section.querySelector(selector);
  const raw = JSON.parse(section.dataset.grid);
  const single = "single" in section.dataset;
  const seen = (text) => Math.min(1e300, Math.max(-1e300, single ? Math.fround(Number(text)) : Number(text)));
  const grid = { value: raw.t.map(seen), below: raw.below, upTo: raw.upTo };
  const known = Number(section.dataset.known);
  const log = "log" in section.dataset;
  const scale = (v) => (log ? Math.log(v) : v);
  const low = Number(section.dataset.low);
  const high = Number(section.dataset.high);
  const area = find(".catch");
  const left = Number(area.getAttribute("x"));
  const width = Number(area.getAttribute("width"));
  const slider = find(".slider");
  const typed = find(".typed");
  const cards = [...section.querySelectorAll(".sample")].map((card) => [card, Number(card.dataset.value)]);
  let atLeast = find('[data-side="min"]').getAttribute("aria-pressed") === "true";
  let text = raw.t[Number(section.dataset.first)];

  const nearest = (t) => {
    let best = 0;
    grid.value.forEach((v, i) => { if (Math.abs(v - t) < Math.abs(grid.value[best] - t)) best = i; });
    return best;
  };
  const draw = () => {
    const t = seen(text);
    const found = counts(grid, t, known);
    say(section, atLeast ? known - found.below : found.upTo, found.about);
    write(section, `${section.dataset.sql} ${atLeast ? ">=" : "<="} ${text}`);
    const inside = Math.min(Math.max(t, low), high);
    const x = left + (width * (scale(inside) - scale(low))) / (scale(high) - scale(low));
    const cut = find(".cut");
    cut.setAttribute("x1", x);
    cut.setAttribute("x2", x);
    const frame = find(".window");
    frame.setAttribute("x", atLeast ? x : 0);
    frame.setAttribute("width", atLeast ? left + width - x + 20 : x);
    for (const [card, value] of cards) card.classList.toggle("off", atLeast ? value < t : value > t);
    for (const button of section.querySelectorAll("[data-side]"))
      button.setAttribute("aria-pressed", String((button.dataset.side === "min") === atLeast));
  };
  const put = (value, from) => {
    text = value;
    if (from !== typed) typed.value = value;
    if (from !== slider) slider.value = nearest(seen(value));
    typed.classList.remove("wrong");
    draw();
  };

  slider.addEventListener("input", () => put(raw.t[Number(slider.value)], slider));
  typed.addEventListener("input", () => {
    const value = typed.value.trim();
    if (/^-?(\d+\.?\d*|\.\d+)$/.test(value)) put(value, typed);
    else typed.classList.add("wrong");
  });
  section.addEventListener("click", (event) => {
    const side = event.target.closest("[data-side]");
    const set = event.target.closest("[data-set]");
    if (side) { atLeast = side.dataset.side === "min"; draw(); }
    if (set) put(set.dataset.set);
  });
  const point = (event) => {
    const box = area.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const at = scale(low) + share * (scale(high) - scale(low));
    put(raw.t[nearest(log ? Math.exp(at) : at)]);
  };
  area.addEventListener("pointerdown", (event) => { area.setPointerCapture(event.pointerId); point(event); });
  area.addEventListener("pointermove", (event) => { if (event.buttons) point(event); });
  typed.value = text;
  slider.value = section.dataset.first;
  draw();
}

function categories(section) {
  const boxes = [...section.querySelectorAll(".choice input")];
  const draw = () => {
    const on = boxes.filter((box) => box.checked);
    say(section, on.reduce((sum, box) => sum + Number(box.dataset.rows), 0), false);
    const values = on.map((box) => box.dataset.sql);
    const column = section.dataset.sql;
    if (!values.length) write(section, "");
    else write(section, values.length === 1 ? `${column} = ${values[0]}` : `${column} IN (${values.join(", ")})`);
    const kept = new Set(on.map((box) => box.dataset.value));
    for (const card of section.querySelectorAll(".sample")) card.classList.toggle("off", !kept.has(card.dataset.value));
  };
  for (const box of boxes) box.addEventListener("change", draw);
  draw();
}

for (const section of document.querySelectorAll("section[data-grid]")) numbers(section);
for (const section of document.querySelectorAll('section[data-kind="category"]'))
  if (section.querySelector(".choice")) categories(section);
