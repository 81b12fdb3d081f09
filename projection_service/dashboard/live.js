/** The stream of events, each once and in order, in batches: one for each frame that the browser draws. */

import { Problem, Unreachable, parse } from "./api.js";
import { isRejection } from "./words.js";

export const RECENT_EVENTS = 100;
const BATCH_EVENTS_MAX = 20_000;
/** A page that is so far behind goes on near the end: nobody can look at what it would still have to read. */
const BEHIND_EVENTS_MAX = 50_000n;
const RETRY_MILLISECONDS_MAX = 10_000;

/** What the stream said. It is read only when somebody wants to see it. */
class Told {
  #text;
  #event;

  constructor(position, text) {
    this.position = position;
    this.#text = text;
  }

  get event() {
    return (this.#event ??= parse(this.#text));
  }

  get isRejection() {
    return this.#text.includes('-rejected"') && isRejection(this.event.type);
  }

  /** May be true of an account that is only spoken of: ids are written as they are. */
  names(accountId) {
    return this.#text.includes(`"${accountId}"`);
  }
}

export class Live {
  /** The last event that was handed on; null before the first one. */
  last = null;
  /** Of those that have come, the last ones, and the last rejections. */
  recent = [];
  rejections = [];
  /** What the service said in place of a stream. */
  refusal = null;
  #source = null;
  #waiting = [];
  #frame = null;
  #retry = null;
  #failures = 0;

  /** `onEvents(batch)`; `onState("live" | "lost" | "refused")`. */
  constructor({ onEvents, onState }) {
    this.onEvents = onEvents;
    this.onState = onState;
    // A page that nobody sees draws no frames, and need not take one of the browser's few connections.
    document.addEventListener("visibilitychange", () => {
      if (this.last === null) return;
      if (document.hidden) this.#close();
      else if (!this.#source) this.#open();
    });
  }

  /** Begin with what comes after the position `after`. */
  start(after) {
    this.#close();
    this.last = after;
    if (!document.hidden) this.#open();
  }

  /** The views are at `position`, somebody says. */
  heard(position) {
    if (this.last !== null && position - this.last > BEHIND_EVENTS_MAX) this.start(position - 100n);
  }

  #open() {
    this.#source = new EventSource(`stream?after=${this.last}`);
    this.#source.onopen = () => {
      this.#failures = 0;
      this.refusal = null;
      this.onState("live");
    };
    this.#source.onmessage = (message) => {
      this.#waiting.push(new Told(BigInt(message.lastEventId), message.data));
      if (this.#waiting.length >= BATCH_EVENTS_MAX) this.#handOn();
      else this.#frame ??= requestAnimationFrame(() => this.#handOn());
    };
    this.#source.onerror = () => {
      // The browser comes back by itself, with Last-Event-ID, but not when it was answered anything else than a stream.
      if (this.#source.readyState !== EventSource.CLOSED) return this.onState("lost");
      this.#close();
      this.#ask();
      const wait = Math.min(1000 * 2 ** this.#failures++, RETRY_MILLISECONDS_MAX);
      this.#retry = setTimeout(() => this.#open(), wait);
    };
  }

  /** Why there is no stream: an EventSource does not say. */
  async #ask() {
    const asking = new AbortController();
    try {
      const response = await fetch(`stream?after=${this.last}`, { signal: asking.signal });
      if (!response.ok) this.refusal = new Problem(response.status, parse(await response.text()));
    } catch {
      this.refusal = null;
    }
    asking.abort();
    this.onState(this.refusal ? "refused" : "lost");
  }

  #close() {
    this.#handOn();
    clearTimeout(this.#retry);
    this.#source?.close();
    this.#source = null;
  }

  #handOn() {
    cancelAnimationFrame(this.#frame);
    this.#frame = null;
    if (!this.#waiting.length) return;
    const batch = this.#waiting;
    this.#waiting = [];
    this.last = batch.at(-1).position;
    this.recent = [...this.recent, ...batch].slice(-RECENT_EVENTS);
    this.rejections = [...this.rejections, ...batch.filter((told) => told.isRejection)].slice(-RECENT_EVENTS);
    this.onEvents(batch);
  }
}

/** The `number` events before the position `at` and at it, or as many as there are. */
export function eventsUpTo(at, number, signal) {
  const after = at > number ? at - number : 0n;
  if (at === 0n) return Promise.resolve([]);
  return new Promise((resolve, reject) => {
    const events = [];
    const source = new EventSource(`stream?after=${after}`);
    const end = (settle, value) => (source.close(), settle(value));
    signal.addEventListener("abort", () => end(reject, signal.reason));
    source.onerror = () => end(reject, new Unreachable());
    source.onmessage = (message) => {
      events.push(new Told(BigInt(message.lastEventId), message.data));
      if (events.at(-1).position >= at) end(resolve, events);
    };
  });
}
