"use strict";
// The way through a reading: consent, display check, practice, cases, pauses, end.
class Reader {
  constructor(root, study) {
    this.root = root;
    this.storage = new Storage(study);
    this.pack = study.pack;
    this.say = wordsOf(this.pack.language);
    document.documentElement.lang = this.pack.language;
    document.title = this.say("reading");
  }

  async run() {
    if (!this.storage.begun) {
      await this.welcome();
      await this.begin(await this.display());
    }
    for (let before = null, item; (item = this.storage.open()); before = item) {
      await this.between(before, item);
      await this.read(item);
    }
    this.end();
  }

  // A page of text. Resolves when its button is pressed.
  page(title, paragraphs, go) {
    const main = element("main", "page"), press = button(go, null, "primary");
    main.append(element("h1", "", title), ...paragraphs.map((one) => (typeof one === "string" ? element("p", "", one) : one)), press);
    this.root.replaceChildren(main);
    scrollTo(0, 0);
    press.focus({ preventScroll: true });
    return new Promise((resolve) => press.addEventListener("click", resolve, { once: true }));
  }

  async welcome() {
    const { pack, say, storage } = this, file = storage.file;
    const n = pack.items.length, texts = [say("welcome", { items: say(pack.design === "pairs" ? "pairs" : "cases", { n }) })];
    if (pack.practice.length) texts.push(say("practiceFirst", { n: pack.practice.length }));
    if (pack.sessions.length > 1) texts.push(say("sittings", { n: pack.sessions.length }));
    texts.push(this.share(), say("final"));
    const served = storage.served;
    const data = [say("data1", { reader: pack.reader }), say(served ? "dataServed" : "dataFile", { file }),
      say(served ? "dataDelete" : "dataDeleteFile"), say("dataFree")];
    await this.page(pack.title || say("task"), [...texts, element("h2", "", say("dataTitle")), ...data], say("agree"));
  }

  // What the reader may know of the share of real volumes. Of pairs it is a half (one of each two is real) or none.
  share() {
    const { pack, say } = this, share = pack.real_share;
    if (share === null) return say("noShare");
    if (share === 0) return say("shareNone");
    return pack.design === "pairs" ? say("sharePair") : say("share", { percent: Math.round(100 * share) });
  }

  async display() {
    for (;;) {
      const main = element("main", "page display");
      this.root.replaceChildren(main);
      const passed = await displayCheck(main, this.say);
      const again = this.page(this.say("displayTitle"), [this.say(passed ? "displayPassed" : "displayFailed")], this.say("goOn"));
      if (passed) return again.then(() => true);
      const repeat = button(this.say("again"));
      this.root.firstChild.append(repeat);
      repeat.focus({ preventScroll: true }); // Enter must not pass over a failed check
      const choice = await Promise.race([again.then(() => "go on"), new Promise((resolve) => repeat.addEventListener("click", () => resolve("again")))]);
      if (choice === "go on") return false;
    }
  }

  async begin(passed) {
    const shown = { width: screen.width, height: screen.height, pixel_ratio: devicePixelRatio };
    for (;;) {
      try {
        return await this.storage.begin(shown, passed);
      } catch (failure) {
        await this.page(this.say("reading"), [this.failed(failure)], this.say("goOn"));
      }
    }
  }

  failed(failure) {
    console.error(failure);
    return this.say(failure.reason ?? "unsaved", { detail: failure.detail }) ?? this.say("unsaved");
  }

  // The pages before an item: the end of the practice, and of a session; and the keys before the first item.
  async between(before, item) {
    const { pack, say } = this;
    if (!before && !(this.storage.lines.length > 1)) await this.page(say("keysTitle"), [this.keys()], say("start"));
    if (before?.practice && !item.practice) await this.page(say("practiceDone"), [say("practiceDoneText")], say("goOn"));
    const session = item.practice ? 0 : pack.sessions.indexOf(item.item);
    if (session > 0) await this.page(say("pause"), [say("pauseText", { at: session, n: pack.sessions.length })], say("goOn"));
  }

  keys() {
    const list = element("dl", "keys");
    for (const [key, action] of this.say("keys")) list.append(element("dt", "", key), element("dd", "", action));
    return list;
  }

  // Show an item until it is answered and saved.
  async read(item) {
    for (;;) {
      try {
        await this.show(item);
        break;
      } catch (failure) {
        await this.page(this.say("reading"), [this.failed(failure)], this.say("goOn"));
      }
    }
    await new Promise((resolve) => (this.saved = resolve));
  }

  async show(item) {
    if (!this.frame?.isConnected) this.build();
    const { form, planes, storage } = this, draft = storage.draft();
    document.body.dataset.state = "loading";
    this.header(item);
    this.status.textContent = this.say("loading");
    form.open(item, draft && String(draft.place) === String([item.practice, item.item]) ? draft : null);
    const values = [];
    for (const code of item.codes) values.push(await storage.values(code, item.practice));
    await planes.open(item.codes, values);
    planes.marks = form.marks;
    this.status.textContent = "";
    scrollTo(0, 0);
    await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))); // it is on the screen
    form.start();
    document.body.dataset.state = `${item.practice ? "practice" : "case"} ${item.item}`;
  }

  build() {
    const { pack, say, storage } = this;
    this.frame = element("div", `frame ${pack.design}`);
    const head = element("header"), side = element("aside", "form"), viewer = element("main", "viewer");
    this.where = element("span", "where");
    this.progress = element("progress");
    this.status = element("span", "status");
    this.dialog = element("dialog");
    this.dialog.append(element("h2", "", say("keysTitle")), this.keys(), button(say("close"), () => this.dialog.close()));
    head.append(this.where, this.progress, this.status, button(say("help"), () => this.dialog.showModal()));
    if (!storage.served) {
      head.append(button(say("save"), () => storage.download()));
      this.dialog.append(this.deletes());
    }
    this.frame.append(head, viewer, side, this.dialog);
    this.root.replaceChildren(this.frame);
    this.planes = new Planes(viewer, pack.grid, say, {
      mark: (code, plane, point) => this.form.mark(code, plane, point), used: (name) => this.form?.used(name),
    });
    this.form = new Form(side, pack, say, this.planes, async (answer) => {
      await storage.answer(answer);
      this.saved();
    });
    this.form.keep = (draft) => storage.draft(draft);
  }

  header({ practice, item }) {
    const { pack, say } = this, items = practice ? pack.practice : pack.items;
    const texts = [say(practice ? "practiceLabel" : "caseLabel", { at: item + 1, n: items.length })];
    const session = pack.sessions.filter((start) => start <= item).length;
    if (!practice && pack.sessions.length > 1) texts.push(say("session", { at: session, n: pack.sessions.length }));
    this.where.textContent = texts.join(" · ");
    this.where.classList.toggle("practice", practice);
    Object.assign(this.progress, { max: items.length, value: item });
    this.progress.setAttribute("aria-label", texts[0]);
  }

  key(event) {
    const typing = event.target.closest?.("textarea, input, select"), open = this.frame?.isConnected && document.body.dataset.state !== "loading";
    if (!open || this.dialog.open || event.altKey) return;
    const leaves = event.key === "Escape" || (event.key === "Enter" && !event.target.matches?.("textarea"));
    if (typing && leaves) return event.target.blur();
    if (typing || event.ctrlKey || event.metaKey) return;
    const { planes, form } = this, key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 }[key];
    if (steps) planes.scroll(steps);
    else if (/^\d$/.test(key)) form.answer(Number(key));
    else if (key === "Enter") {
      if (event.target.closest?.("button") && event.target !== form.next) event.target.blur(); // Enter is the next question
      if (!event.repeat) event.shiftKey ? form.back() : form.forward();
    } else if (KEYS[key]) planes.window(KEYS[key]);
    else if (LARGE[key]) planes.enlarge(LARGE[key]);
    else if (key === "+") planes.zoomBy(1.5);
    else if (key === "-") planes.zoomBy(1 / 1.5);
    else if (key === "r") planes.reset();
    else if (key === "x") planes.toggleCross();
    else if (key === "p") planes.mark();
    else if (key === "?") this.dialog.showModal();
    else return;
    event.preventDefault();
  }

  deletes() {
    const { say, storage } = this;
    return button(say("deleteAll"), () => confirm(say("deleteSure")) && (storage.clear(), location.reload()));
  }

  end() {
    const { say, storage } = this, file = storage.file;
    const texts = [say("doneText"), say(storage.served ? "doneServed" : "doneFile", { file })];
    const main = element("main", "page");
    main.append(element("h1", "", say("done")), ...texts.map((text) => element("p", "", text)));
    if (!storage.served) {
      main.append(button(say("save"), () => storage.download(), "primary"));
      main.append(this.deletes());
    }
    this.root.replaceChildren(main);
    document.body.dataset.state = "finished";
  }
}

(() => {
  const root = document.getElementById("root");
  if (!window.study) return void root.append(element("p", "page", LARGE_PACK));
  const reader = (window.reader = new Reader(root, window.study));
  document.addEventListener("keydown", (event) => reader.key(event));
  reader.run();
})();
