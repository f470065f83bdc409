"use strict";
// Where answers are kept and cases come from: `reading serve`, or for a page opened from its file this browser.
class Storage {
  constructor(study) {
    Object.assign(this, { study, pack: study.pack, lines: study.lines, served: study.served });
    this.name = `medlord-reading-${study.pack_sha256}`;
    if (!this.served) this.lines = JSON.parse(this.get(this.name) ?? "[]");
  }

  get file() {
    return `${this.pack.reader}.jsonl`;
  }

  get begun() {
    return this.lines.length > 0;
  }

  // The next item to be read, practice first; null after the last.
  open() {
    const done = new Set(this.lines.filter((line) => "item" in line).map((line) => `${line.practice} ${line.item}`));
    for (const practice of [true, false]) {
      const items = practice ? this.pack.practice : this.pack.items;
      const item = items.findIndex((_, place) => !done.has(`${practice} ${place}`));
      if (item >= 0) return { practice, item, codes: items[item] };
    }
    return null;
  }

  async begin(screen, passed) {
    const { pack, study } = this, about = { screen, display_check: { passed } };
    if (this.served) await this.send("begin", about);
    this.keep("begun", {
      schema_version: 1, pack: pack.id, pack_sha256: study.pack_sha256, reader: pack.reader, started: now(),
      reader_version: study.reader_version, ...about,
    });
  }

  // Resolves when the answer is saved.
  async answer(line) {
    if (this.served) await this.send("answer", line);
    this.keep("locked", { ...line, answered: now() });
    this.draft(null);
    if (!this.open()) this.keep("", { finished: now() });
  }

  async send(where, content) {
    let reply;
    try {
      reply = await fetch(where, { method: "POST", body: JSON.stringify(content), headers: { "Content-Type": "application/json" } });
    } catch {
      throw new Failure("offline");
    }
    if (!reply.ok) await refused(reply);
  }

  // Add a line. Without a server: to what another window may have added meanwhile; `taken` is the failure if it has.
  keep(taken, line) {
    if (!this.served) {
      const stored = JSON.parse(this.get(this.name) ?? "[]");
      if (stored.length !== this.lines.length) throw new Failure(taken || "locked");
      try {
        localStorage.setItem(this.name, JSON.stringify([...stored, line]));
      } catch {
        throw new Failure("disk");
      }
    }
    this.lines.push(line);
  }

  // What is entered for an open item, kept over a reload.
  draft(value) {
    const name = `${this.name}-draft`;
    try {
      if (value === undefined) return JSON.parse(localStorage.getItem(name));
      if (value === null) localStorage.removeItem(name);
      else localStorage.setItem(name, JSON.stringify(value));
    } catch { /* a browser that stores nothing: a reload empties the open item */ }
    return null;
  }

  get(name) {
    try {
      return localStorage.getItem(name);
    } catch {
      return null;
    }
  }

  clear() {
    this.draft(null);
    localStorage.removeItem(this.name);
  }

  download() {
    const text = this.lines.map((line) => `${JSON.stringify(line)}\n`).join("");
    const link = element("a"), url = URL.createObjectURL(new Blob([text], { type: "application/jsonl" }));
    Object.assign(link, { href: url, download: this.file }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }

  // The values of a case, as the bits of int16.
  async values(code, practice) {
    const place = `${practice ? "practice" : "cases"}/${code}`, [x, y, z] = this.pack.grid.shape;
    const buffer = this.served ? await fetched(`${place}.i16`) : fromBase64(await scripted(`${place}.js`)).buffer;
    if (buffer.byteLength !== 2 * x * y * z) throw new Failure("damaged");
    return new Uint16Array(buffer);
  }
}

// A failure with words of its own in `words.js`.
class Failure extends Error {
  constructor(reason, detail = "") {
    super(reason);
    Object.assign(this, { reason, detail });
  }
}

async function fetched(address) {
  let reply;
  try {
    reply = await fetch(address);
  } catch {
    throw new Failure("offline");
  }
  if (!reply.ok) await refused(reply);
  return reply.arrayBuffer();
}

async function refused(reply) {
  const { error = "unsaved", detail = "" } = await reply.json().catch(() => ({}));
  throw new Failure(error, detail);
}

// A page opened from its file may load scripts, but not fetch: each case is a call of `readingCase`.
function scripted(address) {
  return new Promise((resolve, reject) => {
    const script = Object.assign(element("script"), { src: address });
    window.readingCase = (_, content) => resolve(content);
    script.addEventListener("load", () => script.remove());
    script.addEventListener("error", () => (script.remove(), reject(new Failure("damaged"))));
    document.head.append(script);
  });
}

function now() {
  return `${new Date().toISOString().slice(0, 19)}+00:00`;
}
