"use strict";
// The slice viewer of the report page with what a reader needs besides: one large plane, zoom, a free window, a crosshair, marks.
const KEYS = { l: "lung", m: "mediastinum", b: "bone", f: "full" };
const LARGE = { a: "axial", c: "coronal", s: "sagittal" };
const MOST_ZOOM = 12;

class Planes extends Viewer {
  // grid: of all cases. say: words. hooks: {mark(code, plane, point), used(window)}.
  constructor(root, grid, say, hooks) {
    super(root, []);
    PRESETS.full = grid.window; // all HU that a case can have
    Object.assign(this, { grid, say, hooks, zoom: 1, centre: [0.5, 0.5, 0.5], cross: true, marking: false, touches: new Map(), marks: [], turned: 0 });
    this.windowButtons();
    this.viewButtons();
    this.enlarge("axial");
    this.window("lung");
  }

  // Show a case, or two side by side, in the window of the last one. values: of each code.
  async open(codes, values) {
    this.row.replaceChildren();
    this.panels = [];
    this.volumes.clear();
    Object.assign(this, { at: [0.5, 0.5, 0.5], marks: [] });
    this.row.classList.toggle("two", codes.length > 1);
    codes.forEach((code, side) => {
      const title = codes.length > 1 ? `${this.say(side ? "right" : "left")} · ${code}` : code;
      this.volumes.set(code, { id: code, title, shape: this.grid.shape, spacing: this.grid.spacing, values: values[side] });
    });
    for (const code of codes) {
      const panel = this.emptyPanel(element("strong", "", this.volumes.get(code).title));
      await this.show(panel, code);
    }
    this.active = [this.panels[0], this.panels[0].planes.find((plane) => plane.name === this.big)];
    this.reset();
    this.hooks.used(this.preset);
  }

  async load(id) {
    return this.volumes.get(id);
  }

  windowButtons() {
    this.presetButtons = Object.entries(KEYS).map(([key, name]) => {
      const [low, high] = PRESETS[name], text = `${this.say(name)} (${key})`;
      return [name, this.button(text, `${text}, ${low} … ${high} HU`, () => this.window(name))];
    });
    const both = element("span", "fields");
    this.bar.append(both);
    this.fields = ["level", "width"].map((name) => {
      const label = element("label", "field", this.say(name)), field = Object.assign(element("input"), { type: "number", step: 10 });
      field.addEventListener("change", () => this.free(...this.fields.map((one) => Number(one.value))));
      label.append(field);
      both.append(label);
      return field;
    });
  }

  viewButtons() {
    this.button("+", `${this.say("zoomIn")} (+)`, () => this.zoomBy(1.5));
    this.button("−", `${this.say("zoomOut")} (−)`, () => this.zoomBy(1 / 1.5));
    this.button("1:1", `${this.say("reset")} (r)`, () => this.reset());
    this.crossButton = this.button(`${this.say("cross")} (x)`, this.say("cross"), () => this.toggleCross());
    this.markButton = this.button(`${this.say("mark")} (p)`, this.say("markHelp"), () => this.toggleMarking());
    this.bar.append((this.largeButtons = element("span", "planes-of")));
    for (const [key, name] of Object.entries(LARGE)) {
      const one = button(`${this.say(name)} (${key})`, () => this.enlarge(name));
      one.dataset.plane = name;
      one.setAttribute("aria-label", `${this.say("large")}: ${this.say(name)}`);
      this.largeButtons.append(one);
    }
    this.crossButton.setAttribute("aria-pressed", "true");
    this.markButton.setAttribute("aria-pressed", "false");
  }

  window(name) {
    super.window(name);
    const [low, high] = PRESETS[name];
    this.fill((low + high) / 2, high - low);
    this.hooks?.used(name); // none yet while the viewer is made
  }

  free(level, width) {
    if (!Number.isFinite(level) || !(width >= 1)) return;
    this.preset = "free";
    this.levels(level - width / 2, level + width / 2);
    this.fill(level, width);
    this.hooks.used("free");
  }

  fill(level, width) {
    if (!this.fields) return;
    [this.fields[0].value, this.fields[1].value] = [Math.round(level), Math.round(width)];
  }

  enlarge(name) {
    this.big = name;
    this.row.dataset.large = name;
    for (const one of this.largeButtons.children) one.setAttribute("aria-pressed", String(one.dataset.plane === name));
    if (this.panels.length) this.active = [this.active[0], this.active[0].planes.find((plane) => plane.name === name)];
    this.later();
  }

  toggleCross() {
    this.cross = !this.cross;
    this.crossButton.setAttribute("aria-pressed", String(this.cross));
    this.later();
  }

  toggleMarking(on = !this.marking) {
    this.marking = on;
    this.markButton.setAttribute("aria-pressed", String(on));
    this.row.classList.toggle("marking", on);
  }

  // Mark where the crosshair is, in a plane; the active one if none is given.
  mark([panel, plane] = this.active) {
    this.toggleMarking(false);
    this.hooks.mark(panel.volume.id, plane.name, this.voxel());
  }

  // Where the crosshair is.
  voxel() {
    return this.at.map((at, axis) => Math.floor(at * this.grid.shape[axis]));
  }

  go(point) {
    this.at = point.map((index, axis) => (index + 0.5) / this.grid.shape[axis]);
    this.later();
  }

  reset() {
    Object.assign(this, { zoom: 1, centre: [0.5, 0.5, 0.5] });
    this.later();
  }

  zoomBy(factor, about = this.at) {
    const before = this.zoom;
    this.zoom = Math.min(MOST_ZOOM, Math.max(1, before * factor));
    const share = 1 - before / this.zoom; // `about` keeps its place on the screen
    this.centre = this.centre.map((at, axis) => at + (about[axis] - at) * share);
    this.bound();
  }

  pan(plane, across, down) { // in parts of a plane's frame
    this.centre[plane.across] += across / this.zoom;
    this.centre[plane.down] += down / this.zoom;
    this.bound();
  }

  bound() {
    const half = 0.5 / this.zoom;
    this.centre = this.centre.map((at) => Math.min(1 - half, Math.max(half, at)));
    this.later();
  }

  wheel(panel, plane, event) {
    if (event.ctrlKey) {
      const at = [...this.at];
      [at[plane.across], at[plane.down]] = this.under(plane, event);
      this.zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2, at);
      return true;
    }
    this.turned += event.deltaMode ? 40 * event.deltaY : event.deltaY; // a trackpad sends many small turns
    const steps = Math.trunc(this.turned / 40);
    this.turned -= 40 * steps;
    if (steps) this.move(panel, plane, steps);
    return true;
  }

  under(plane, event) {
    const box = plane.canvas.getBoundingClientRect();
    return [clamp(1 - (event.clientX - box.left) / box.width), clamp(1 - (event.clientY - box.top) / box.height)];
  }

  dragged(panel, plane, event) {
    this.active = [panel, plane];
    if (event.pointerType !== "mouse") return this.pinched(plane, event);
    if (event.button === 2) return this.windowed(event);
    const marks = this.marking || event.ctrlKey || event.metaKey;
    if (marks && event.button === 0) {
      this.point(plane, event);
      this.mark([panel, plane]);
      return () => {};
    }
    if (!event.shiftKey && event.button !== 1) return null;
    const frame = plane.frame.getBoundingClientRect();
    let last = [event.clientX, event.clientY];
    return (moved) => {
      this.pan(plane, (moved.clientX - last[0]) / frame.width, (moved.clientY - last[1]) / frame.height);
      last = [moved.clientX, moved.clientY];
    };
  }

  windowed(event) {
    const [level, width] = this.fields.map((field) => Number(field.value)), { clientX, clientY } = event;
    const scale = Math.max(1, width / 300);
    return (moved) => {
      if (moved.buttons & 2) this.free(level + (moved.clientY - clientY) * scale, Math.max(1, width + (moved.clientX - clientX) * scale));
    };
  }

  // Two fingers zoom and move; one is left to the viewer, unless it marks.
  pinched(plane, event) {
    if (event.isPrimary) this.touches.clear();
    this.touches.set(event.pointerId, [event.clientX, event.clientY]);
    if (this.touches.size < 2) {
      if (!this.marking) return null;
      this.point(plane, event);
      this.mark();
      return () => {};
    }
    const frame = plane.frame.getBoundingClientRect();
    const measure = () => {
      const [a, b] = [...this.touches.values()];
      return [Math.hypot(a[0] - b[0], a[1] - b[1]), (a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
    };
    let [apart, x, y] = measure();
    return (moved) => {
      this.touches.set(moved.pointerId, [moved.clientX, moved.clientY]);
      const next = measure();
      this.zoomBy(next[0] / Math.max(1, apart), this.centre);
      this.pan(plane, (next[1] - x) / frame.width, (next[2] - y) / frame.height);
      [apart, x, y] = next;
    };
  }

  plane(panel, plane, parent) {
    const made = super.plane(panel, plane, parent);
    made.caption.parentElement.dataset.plane = plane.name;
    made.lines = [element("i", "cross across"), element("i", "cross down")];
    made.rings = element("div", "rings");
    made.frame.append(...made.lines, made.rings);
    made.canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    made.canvas.addEventListener("dblclick", () => this.enlarge(plane.name));
    made.canvas.addEventListener("focus", () => (this.active = [panel, made]));
    made.canvas.addEventListener("pointerenter", () => (this.active = [panel, made]));
    return made;
  }

  key() {} // the page's keys work wherever the focus is

  scroll(steps) {
    this.move(...this.active, steps);
  }

  draw(panel, plane) {
    super.draw(panel, plane);
    const { zoom } = this, shift = [plane.across, plane.down].map((axis) => Math.min(0, Math.max(1 - zoom, 0.5 - (1 - this.centre[axis]) * zoom)));
    plane.canvas.style.transform = `translate(${100 * shift[0]}%, ${100 * shift[1]}%) scale(${zoom})`;
    const { shape } = this.grid, point = this.voxel(), slice = point[plane.through];
    const place = (index, axis, side) => `${100 * (shift[side] + (1 - (index + 0.5) / shape[axis]) * zoom)}%`;
    plane.lines[0].style.top = place(point[plane.down], plane.down, 1);
    plane.lines[1].style.left = place(point[plane.across], plane.across, 0);
    for (const line of plane.lines) line.hidden = !this.cross;
    plane.rings.replaceChildren(...this.marks.flatMap((mark, number) => {
      if (mark.code !== panel.volume.id || mark.point[plane.through] !== slice) return [];
      const ring = element("b", "", String(number + 1));
      ring.style.left = place(mark.point[plane.across], plane.across, 0);
      ring.style.top = place(mark.point[plane.down], plane.down, 1);
      return [ring];
    }));
  }

  named(plane) {
    return this.say(plane.name);
  }

  label(plane, volume) {
    return this.say("planeLabel", { plane: this.say(plane.name), code: volume.id });
  }
}
