"use strict";
// The display check: a grey ramp, and squares that differ little from their surrounding. Needs words of `say`.
const STEP = 6; // of 255 grey values: visible on a display that is set up for reading
const GROUNDS = [[14, STEP], [128, STEP], [240, -STEP]]; // grey of a dark, a middle and a bright area, and the square's difference

// Resolves with whether every square was found.
async function displayCheck(root, say) {
  root.replaceChildren(element("h1", "", say("displayTitle")), element("p", "", say("displayText")), ramp());
  const ask = element("p", "ask", say("displayAsk")), place = element("div", "quarters");
  const none = button(say("displayNone"));
  root.append(ask, place, none);
  let passed = true;
  for (const [ground, step] of GROUNDS) {
    const right = 1 + crypto.getRandomValues(new Uint8Array(1))[0] % 4;
    const canvas = quarters(ground, step, right);
    place.replaceChildren(canvas);
    if ((await chosen(canvas, none)) !== right) passed = false; // the others are shown all the same
  }
  return passed;
}

function ramp() {
  const canvas = Object.assign(element("canvas", "ramp"), { width: 512, height: 48 }), context = canvas.getContext("2d");
  for (let step = 0; step < 32; step++) {
    const grey = Math.round(step * 255 / 31);
    context.fillStyle = `rgb(${grey} ${grey} ${grey})`;
    context.fillRect(step * 16, 0, 16, 48);
  }
  return canvas;
}

function quarters(ground, step, right) {
  const canvas = Object.assign(element("canvas", "square"), { width: 320, height: 320 }), context = canvas.getContext("2d");
  const fill = (grey, ...box) => {
    context.fillStyle = `rgb(${grey} ${grey} ${grey})`;
    context.fillRect(...box);
  };
  fill(ground, 0, 0, 320, 320);
  const at = right - 1, grey = ground > 127 ? 60 : 150;
  fill(ground + step, (at % 2) * 160 + 55, Math.floor(at / 2) * 160 + 55, 50, 50);
  fill(grey, 160, 0, 1, 320);
  fill(grey, 0, 160, 320, 1);
  context.font = "14px sans-serif";
  for (let number = 0; number < 4; number++) context.fillText(String(number + 1), (number % 2) * 160 + 8, Math.floor(number / 2) * 160 + 20);
  return canvas;
}

// The number of the quarter that is clicked or typed; 0 for none.
function chosen(canvas, none) {
  return new Promise((resolve) => {
    const ended = new AbortController();
    const end = (number) => (ended.abort(), resolve(number));
    const listen = (target, name, action) => target.addEventListener(name, action, { signal: ended.signal });
    listen(none, "click", () => end(0));
    listen(canvas, "click", (event) => {
      const box = canvas.getBoundingClientRect();
      end(1 + (event.clientX > box.left + box.width / 2) + 2 * (event.clientY > box.top + box.height / 2));
    });
    listen(document, "keydown", (event) => "01234".includes(event.key) && !event.repeat && end(Number(event.key)));
  });
}

function button(text, action = null, name = "") {
  const made = Object.assign(element("button", name, text), { type: "button" });
  if (action) made.addEventListener("click", action);
  return made;
}
