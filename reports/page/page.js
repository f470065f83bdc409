"use strict";
// Starts the slice viewer, and fills the tables of cases, which the reader sorts and filters.
function data(id) {
  const found = document.getElementById(id);
  return found && JSON.parse(found.textContent);
}

function startViewer() {
  const offer = data("volumes"), root = document.getElementById("viewer-root");
  if (!offer || !root) return;
  const full = document.documentElement.dataset.full;
  const viewer = new Viewer(root, offer.volumes, full ? (id) => `${full}?id=${encodeURIComponent(id)}` : null);
  viewer.presets();
  if (offer.volumes.some((volume) => volume.labels)) {
    viewer.maskButton = viewer.button("masks", "outline the masks, key m", () => viewer.toggleMasks());
    viewer.maskButton.setAttribute("aria-pressed", "false");
    viewer.legend(offer.regions);
  }
  const first = viewer.panel(offer.left), second = viewer.panel(offer.right);
  const look = (left, right) => Promise.all([viewer.show(first, left), viewer.show(second, right)]);
  if (offer.looks.length) viewer.bar.append(chooser(offer.looks, look));
  for (const button of document.querySelectorAll("button[data-left]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      look(button.dataset.left, button.dataset.right);
      document.getElementById("viewer").scrollIntoView();
    });
  }
  window.viewer = viewer;
}

function chooser(looks, look) {
  const select = element("select");
  select.setAttribute("aria-label", "cases worth a look");
  select.append(element("option", "", "cases worth a look"));
  const groups = new Map();
  looks.forEach((one, place) => {
    if (!groups.has(one.metric)) groups.set(one.metric, Object.assign(element("optgroup"), { label: one.metric }));
    groups.get(one.metric).append(Object.assign(element("option", "", one.text), { value: place }));
  });
  select.append(...groups.values());
  select.addEventListener("change", () => select.value in looks && look(looks[select.value].left, looks[select.value].right));
  return select;
}

const STEP = 200; // rows of a table that are drawn at once

function startTables() {
  for (const details of document.querySelectorAll("details[data-cases]"))
    details.addEventListener("toggle", () => details.open && !details.dataset.drawn && fill(details), { once: false });
}

function fill(details) {
  details.dataset.drawn = "yes";
  const { columns, rows } = data(details.dataset.cases), state = { by: null, down: false, text: "", most: STEP };
  const input = Object.assign(element("input"), { type: "search", placeholder: "filter, e.g. a contestant, case or region" });
  input.setAttribute("aria-label", `filter the cases of ${details.dataset.metric}`);
  const count = element("span", "note"), table = element("table"), head = table.createTHead().insertRow(), body = table.createTBody();
  const buttons = columns.map((title, place) => {
    const cell = element("th"), button = element("button", "sort", title);
    cell.scope = "col";
    cell.append(button);
    head.append(cell);
    button.type = "button";
    button.addEventListener("click", () => {
      state.down = state.by === place ? !state.down : false;
      state.by = place;
      draw();
    });
    return cell;
  });
  const more = element("button", "", "show more");
  more.type = "button";
  more.addEventListener("click", () => {
    state.most += 5 * STEP;
    draw();
  });
  input.addEventListener("input", () => {
    Object.assign(state, { text: input.value.toLowerCase(), most: STEP });
    draw();
  });
  const box = element("div", "scroll");
  box.append(table);
  details.append(input, count, box, more);

  function draw() {
    const words = state.text.split(/\s+/).filter(Boolean);
    let found = rows.filter((row) => words.every((word) => row.some((cell) => String(cell).toLowerCase().includes(word))));
    if (state.by !== null) {
      found = [...found].sort((a, b) => compared(a[state.by], b[state.by]) * (state.down ? -1 : 1));
    }
    buttons.forEach((cell, place) => {
      cell.setAttribute("aria-sort", place !== state.by ? "none" : state.down ? "descending" : "ascending");
    });
    body.replaceChildren(...found.slice(0, state.most).map((row) => {
      const line = element("tr");
      line.append(...row.map((cell) => element("td", typeof cell === "number" ? "n" : "", String(cell))));
      return line;
    }));
    count.textContent = `${found.length} of ${rows.length} rows`;
    more.hidden = found.length <= state.most;
  }
  draw();
}

function compared(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}

startViewer();
startTables();
