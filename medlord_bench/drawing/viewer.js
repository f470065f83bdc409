"use strict";
// Volumes side by side: three linked planes each, on 2D canvases. Needs no network and no WebGL.
// A volume's values are int16 in HU, z fastest, then y, then x; axes towards the patient's right, front and head. Planes are
// in radiological convention: right on the left, front or head at the top; front on the left of sagittal planes.
const PRESETS = { lung: [-1350, 150], mediastinum: [-160, 240], bone: [-300, 1500], full: [-1000, 1000] };
const PLANES = [
  { name: "axial", across: 0, down: 1, through: 2, sides: "RLAP" },
  { name: "coronal", across: 0, down: 2, through: 1, sides: "RLSI" },
  { name: "sagittal", across: 1, down: 2, through: 0, sides: "APSI" },
];
const COLOURS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"]; // Okabe-Ito

class Viewer {
  // root: an empty element. volumes: [{id, title, group, shape, spacing, hu, labels, beside}], hu and labels as base64 of
  // gzip. full: address of an id's values at full resolution, or null.
  constructor(root, volumes, full = null) {
    Object.assign(this, { root, full, at: [0.5, 0.5, 0.5], preset: "full", masks: false });
    this.volumes = new Map(volumes.map((volume) => [volume.id, volume]));
    this.lut = new Uint32Array(65536);
    root.append((this.bar = element("div", "viewer-bar")), (this.row = element("div", "viewer-row")));
    this.panels = [];
    this.window(this.preset);
  }

  button(text, label, action) {
    const button = element("button", "", text);
    button.type = "button";
    button.setAttribute("aria-label", label);
    button.addEventListener("click", action);
    this.bar.append(button);
    return button;
  }

  presets() {
    this.presetButtons = Object.entries(PRESETS).map(([name, [low, high]], place) => {
      const button = this.button(name, `window ${name}, ${low} to ${high} HU, key ${place + 1}`, () => this.window(name));
      return [name, button];
    });
    this.window(this.preset);
  }

  panel(id) {
    const panel = { box: element("section", "viewer-panel"), select: element("select"), status: element("span", "viewer-status") };
    panel.select.setAttribute("aria-label", `volume ${this.panels.length + 1}`);
    const groups = new Map();
    for (const volume of this.volumes.values()) {
      if (!groups.has(volume.group)) groups.set(volume.group, Object.assign(element("optgroup"), { label: volume.group }));
      groups.get(volume.group).append(Object.assign(element("option", "", `${volume.group}: ${volume.title}`), { value: volume.id }));
    }
    panel.select.append(...groups.values());
    panel.select.addEventListener("change", () => this.show(panel, panel.select.value));
    const head = element("div", "viewer-head");
    head.append(panel.select, panel.status);
    const planes = element("div", "viewer-planes");
    panel.planes = PLANES.map((plane) => this.plane(panel, plane, planes));
    panel.box.append(head, planes);
    this.row.append(panel.box);
    this.panels.push(panel);
    this.show(panel, id);
    return panel;
  }

  plane(panel, plane, parent) {
    const figure = element("figure"), frame = element("div", "viewer-frame"), canvas = element("canvas"), caption = element("figcaption");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    frame.append(canvas, ...[...plane.sides].map((side, place) => element("span", `side side-${place}`, side)));
    figure.append(frame, caption);
    parent.append(figure);
    const made = { ...plane, frame, canvas, caption };
    canvas.addEventListener("wheel", (event) => {
      if (this.move(panel, made, Math.sign(event.deltaY))) event.preventDefault(); // past the last slice the page scrolls
    }, { passive: false });
    let last = null; // of a finger that moves: [y, whether it has moved]
    canvas.addEventListener("pointerdown", (event) => {
      last = [event.clientY, false];
      canvas.setPointerCapture(event.pointerId);
      if (event.pointerType === "mouse") this.point(made, event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!last) return;
      if (event.pointerType === "mouse") return event.buttons & 1 ? this.point(made, event) : undefined;
      const steps = Math.trunc((event.clientY - last[0]) / 6);
      if (steps) {
        last = [last[0] + 6 * steps, true];
        this.move(panel, made, steps);
      }
    });
    canvas.addEventListener("pointerup", (event) => {
      if (last && event.pointerType !== "mouse" && !last[1]) this.point(made, event);
      last = null;
    });
    canvas.addEventListener("keydown", (event) => this.key(panel, made, event));
    return made;
  }

  key(panel, plane, event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's own
    const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 }[event.key];
    const preset = Object.keys(PRESETS)[Number(event.key) - 1];
    if (steps) this.move(panel, plane, steps);
    else if (preset) this.window(preset);
    else if (event.key === "m") this.toggleMasks();
    else return;
    event.preventDefault();
  }

  move(panel, plane, steps) {
    const size = panel.volume ? panel.volume.shape[plane.through] : 1;
    const before = Math.floor(this.at[plane.through] * size);
    this.at[plane.through] = clamp((before + steps + 0.5) / size);
    this.later();
    return Math.floor(this.at[plane.through] * size) !== before;
  }

  point(plane, event) {
    const box = plane.canvas.getBoundingClientRect();
    this.at[plane.across] = clamp(1 - (event.clientX - box.left) / box.width);
    this.at[plane.down] = clamp(1 - (event.clientY - box.top) / box.height);
    this.later();
  }

  window(name) {
    const [low, high] = PRESETS[(this.preset = name)];
    for (let bits = 0; bits < 65536; bits++) {
      const grey = Math.round(255 * clamp(((bits << 16 >> 16) - low) / (high - low)));
      this.lut[bits] = 0xff000000 | grey << 16 | grey << 8 | grey;
    }
    for (const [other, button] of this.presetButtons ?? []) button.setAttribute("aria-pressed", other === name);
    this.later();
  }

  // regions: name -> its labels. The list of their colours is shown with the masks.
  legend(regions) {
    this.names = element("ul", "viewer-legend");
    for (const [name, [label]] of Object.entries(regions)) {
      const line = element("li", "", name.replaceAll("_", " ")), colour = element("span");
      colour.style.background = colourOf(label);
      line.prepend(colour);
      this.names.append(line);
    }
    this.names.hidden = !this.masks;
    this.row.before(this.names);
  }

  toggleMasks() {
    this.masks = !this.masks;
    if (this.names) this.names.hidden = !this.masks;
    this.maskButton?.setAttribute("aria-pressed", this.masks);
    this.later();
  }

  async show(panel, id) {
    panel.wanted = id;
    panel.select.value = id;
    const volume = await this.load(id, panel.status);
    if (panel.wanted !== id) return; // another one was chosen meanwhile
    panel.volume = volume;
    for (const plane of panel.planes) {
      const [w, h] = [volume.shape[plane.across], volume.shape[plane.down]];
      Object.assign(plane.canvas, { width: w, height: h });
      const ratio = (w * volume.spacing[plane.across]) / (h * volume.spacing[plane.down]);
      plane.frame.style.aspectRatio = String(ratio);
      plane.frame.style.width = `min(100%, calc(var(--side) * ${ratio}))`; // the page's style says how high a plane may be
      plane.canvas.setAttribute("aria-label", `${plane.name} plane of ${volume.group}, ${volume.title}; arrow keys scroll`);
      plane.context = plane.canvas.getContext("2d", { alpha: false });
      plane.image = plane.context.createImageData(w, h);
      plane.pixels = new Uint32Array(plane.image.data.buffer);
    }
    this.later();
  }

  async load(id, status) {
    const volume = this.volumes.get(id);
    volume.values ??= new Uint16Array((await unpack(volume.hu)).buffer);
    for (const one of [volume, this.volumes.get(volume.beside)])
      if (one?.labels && !one.mask) one.mask = await unpack(one.labels);
    if (!this.full || volume.whole) return volume.whole ?? volume;
    status.textContent = "loading full resolution";
    try {
      const answer = await fetch(this.full(id));
      if (!answer.ok) throw new Error(answer.status);
      const about = JSON.parse(answer.headers.get("X-Volume"));
      const values = new Uint16Array(await answer.arrayBuffer());
      volume.whole = { ...volume, ...about, values, mask: null };
      status.textContent = `full resolution, ${about.shape.join(" x ")} voxels`;
    } catch (error) {
      status.textContent = `full resolution is not available (${error.message})`;
    }
    return volume.whole ?? volume;
  }

  later() {
    this.due ??= requestAnimationFrame(() => {
      this.due = undefined;
      for (const panel of this.panels) if (panel.volume) for (const plane of panel.planes) this.draw(panel, plane);
    });
  }

  draw(panel, plane) {
    const { shape, values, spacing } = panel.volume, [, ny, nz] = shape, strides = [ny * nz, nz, 1];
    const [w, h] = [shape[plane.across], shape[plane.down]];
    const slice = Math.min(shape[plane.through] - 1, Math.floor(this.at[plane.through] * shape[plane.through]));
    const start = slice * strides[plane.through], right = strides[plane.across], up = strides[plane.down];
    const mask = this.masks ? this.maskOf(panel) : null;
    let out = 0;
    for (let row = h - 1; row >= 0; row--) {
      for (let column = w - 1; column >= 0; column--) {
        const place = start + row * up + column * right;
        let colour = this.lut[values[place]];
        if (mask) colour = outlined(mask, place, right, up, colour);
        plane.pixels[out++] = colour;
      }
    }
    plane.context.putImageData(plane.image, 0, 0);
    const mm = spacing ? `, ${((slice + 0.5) * spacing[plane.through]).toFixed(0)} mm` : "";
    plane.caption.textContent = `${plane.name} ${slice + 1}/${shape[plane.through]}${mm}`;
  }

  maskOf(panel) {
    const own = panel.volume, real = this.volumes.get(own.beside);
    const mask = own.mask ?? real?.mask;
    return mask && mask.length === own.values.length ? mask : null;
  }
}

function outlined(mask, place, right, up, colour) {
  const label = mask[place];
  if (!label || (mask[place + right] === label && mask[place - right] === label && mask[place + up] === label && mask[place - up] === label))
    return colour;
  const code = parseInt(colourOf(label).slice(1), 16);
  return 0xff000000 | (code & 255) << 16 | (code & 0xff00) | code >> 16;
}

function colourOf(label) {
  return COLOURS[label % COLOURS.length];
}

function clamp(value) {
  return Math.min(1 - 1e-9, Math.max(0, value));
}

function element(tag, name = "", text = "") {
  return Object.assign(document.createElement(tag), { className: name, textContent: text });
}

async function unpack(text) {
  const bytes = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
