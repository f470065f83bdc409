"use strict";
// The questions of one item: answered by keys or clicks, with marks and a comment.
class Form {
  // planes: the viewer. save: async, takes the answer.
  constructor(root, pack, say, planes, save) {
    Object.assign(this, { root, pack, say, planes, save });
    this.questions = pack.rubric.questions.filter((one) => pack.design === "ratings" || one.kind === "confidence");
    if (pack.design === "pairs") {
      const sides = ["left", "right"].map((side) => ({ [pack.language]: say(side) }));
      this.questions = [{ name: "choice", words: { [pack.language]: say("choice") }, levels: sides }, ...this.questions];
    }
    document.addEventListener("visibilitychange", () => this.count());
  }

  text(words) {
    return words[this.pack.language];
  }

  // item: {practice, item, codes}. draft: what was entered before a reload, or null.
  open(item, draft) {
    Object.assign(this, { item, busy: false, shown: null, answers: {}, marks: [], comment: "", ms: 0, windows: [] }, draft);
    this.current = 0;
    this.planes.marks = this.marks;
    this.build();
    this.root.scrollTop = 0;
  }

  // The time runs from here on, while the page is visible.
  start() {
    this.shown = performance.now();
    this.count();
  }

  count() {
    if (this.shown === null) return;
    if (this.counting) this.ms += performance.now() - this.shown;
    this.shown = performance.now();
    this.counting = !document.hidden;
  }

  used(window) {
    if (this.windows && !this.windows.includes(window)) this.windows.push(window);
  }

  build() {
    this.list = element("ol", "questions");
    this.lines = this.questions.map((question, place) => this.line(question, place));
    this.list.append(...this.lines.map((line) => line.box));
    this.places = element("ul", "marks");
    const comment = element("label", "comment", this.say("comment"));
    this.area = Object.assign(element("textarea"), { rows: 2, maxLength: 4000, value: this.comment });
    this.area.addEventListener("input", () => this.changed());
    comment.append(this.area);
    this.message = element("p", "message");
    this.message.setAttribute("role", "alert");
    this.next = button(`${this.say("next")} (Enter)`, () => this.submit(), "primary");
    this.root.replaceChildren(this.list, element("h2", "", this.say("marks")), this.places, comment, this.message, this.next);
    this.showMarks();
    this.show();
  }

  line(question, place) {
    const box = element("li"), head = button("", () => this.turn(place), "head");
    const name = element("span", "name", this.text(question.words)), chosen = element("span", "chosen");
    const levels = element("div", "levels"), choices = question.levels.map((words, level) => [level + 1, this.text(words)]);
    if (question.cannot) choices.push(["cannot", this.say("cannot")]);
    const buttons = choices.map(([level, words]) => {
      const one = button("", () => this.answer(level, place), "level");
      one.append(element("kbd", "", level === "cannot" ? "0" : String(level)), element("span", "", words));
      levels.append(one);
      return [level, words, one];
    });
    head.append(name, chosen);
    box.append(head, levels);
    return { box, head, chosen, levels, buttons };
  }

  show() {
    this.lines.forEach((line, place) => {
      const answer = this.answers[this.questions[place].name];
      line.box.classList.toggle("current", place === this.current);
      line.head.setAttribute("aria-expanded", String(place === this.current));
      for (const [level, words, one] of line.buttons) {
        one.setAttribute("aria-pressed", String(level === answer));
        if (level === answer) line.chosen.textContent = words;
      }
    });
  }

  turn(place) {
    this.current = place;
    this.tell("");
    this.show();
    this.lines[place].box.scrollIntoView({ block: "nearest" });
  }

  answer(level, place = this.current) {
    const question = this.questions[place];
    if (level === 0) level = "cannot";
    if (level === "cannot" ? !question.cannot : level > question.levels.length) return;
    this.answers[question.name] = level;
    this.turn(place);
    this.changed();
  }

  // Enter: the next question; after the last one, the first that is open; if none is, the answer is saved.
  forward() {
    if (!(this.questions[this.current].name in this.answers)) return this.tell(this.say("first"));
    if (this.current + 1 < this.questions.length) return this.turn(this.current + 1);
    return this.submit();
  }

  back() {
    this.turn(Math.max(0, this.current - 1));
  }

  mark(code, plane, point) {
    this.marks.push({ code, plane, point, cue: "", words: "" });
    this.showMarks();
    this.changed();
    this.places.lastElementChild.querySelector("select, input")?.focus();
  }

  showMarks() {
    const cues = Object.entries(this.pack.rubric.cues);
    this.places.replaceChildren(...this.marks.map((mark, number) => {
      const line = element("li"), words = Object.assign(element("input"), { value: mark.words, maxLength: 500, placeholder: this.say("words") });
      const slice = `${number + 1} · ${this.say(mark.plane)}`, go = button(slice, () => this.planes.go(mark.point), "go");
      const remove = button("×", () => (this.marks.splice(number, 1), this.showMarks(), this.changed()));
      remove.setAttribute("aria-label", this.say("remove"));
      words.setAttribute("aria-label", this.say("words"));
      words.addEventListener("input", () => ((mark.words = words.value), this.changed()));
      line.append(go);
      if (cues.length) line.append(this.cues(mark, cues));
      line.append(words, remove);
      return line;
    }));
    if (!this.marks.length) this.places.append(element("li", "none", this.say("markHelp")));
    this.planes.later();
  }

  cues(mark, cues) {
    const select = element("select");
    select.setAttribute("aria-label", this.say("cue"));
    select.append(Object.assign(element("option", "", `(${this.say("cue")})`), { value: "" }));
    select.append(...cues.map(([name, words]) => Object.assign(element("option", "", this.text(words)), { value: name })));
    select.value = mark.cue;
    select.addEventListener("change", () => ((mark.cue = select.value), this.changed()));
    return select;
  }

  // Keep what is entered over a reload.
  changed() {
    this.comment = this.area.value;
    this.count();
    const { item, answers, marks, comment, ms, windows } = this;
    this.keep({ place: [item.practice, item.item], answers, marks, comment, ms, windows });
  }

  tell(text) {
    this.message.textContent = text;
  }

  async submit() {
    const open = this.questions.findIndex((question) => !(question.name in this.answers));
    if (open >= 0) {
      this.turn(open);
      return this.tell(this.say("unanswered"));
    }
    if (this.busy || this.shown === null) return undefined;
    this.busy = this.next.disabled = true;
    this.changed();
    const { choice, ...answers } = this.answers, { item, marks, comment, windows } = this;
    const side = choice ? ["left", "right"][choice - 1] : null;
    try {
      await this.save({ ...item, answers, choice: side, marks, comment, ms: Math.round(this.ms), windows });
    } catch (failure) {
      this.busy = this.next.disabled = false;
      this.tell(this.say(failure.reason ?? "unsaved", { detail: failure.detail }) ?? this.say("unsaved"));
    }
    return undefined;
  }
}
