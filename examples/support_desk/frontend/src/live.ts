import type { Message } from "./api";

export type LiveEvent =
  | { type: "hello"; version: string; instance: string }
  | { type: "joined"; session_id: string }
  | { type: "message"; session_id: string; message: Message }
  | { type: "piece"; session_id: string; message_id: string; text: string }
  | { type: "answer"; session_id: string; cached: boolean; message: Message }
  | { type: "error"; code: string; detail: string; session_id?: string | null }
  | { type: "pong" };

export type LinkState = "connecting" | "open" | "waiting";

interface Handlers {
  event: (event: LiveEvent) => void;
  state: (state: LinkState) => void;
}

const FIRST_DELAY = 300;
const LONGEST_DELAY = 10_000;
const PING_EVERY = 25_000;

/** Full jitter: a release closes all clients at once, and they must not all come back at once. */
export function delay(attempt: number, random: () => number = Math.random): number {
  const ceiling = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** attempt);
  return 50 + random() * ceiling;
}

/** A WebSocket that comes back: after 1012 (the server restarts), after 1006 (the line broke), after anything. */
export class LiveLink {
  private socket: WebSocket | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private pinger: ReturnType<typeof setInterval> | undefined;
  private attempt = 0;
  private stopped = false;
  private sessionId: string | null = null;

  constructor(
    private readonly handlers: Handlers,
    private readonly address = `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/ws`,
  ) {}

  start(): void {
    this.stopped = false;
    this.connect();
  }

  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
    clearInterval(this.pinger);
    this.socket?.close(1000);
    this.socket = null;
  }

  /** Watch this session from now on, and again after each reconnect. */
  join(sessionId: string): void {
    if (this.sessionId && this.sessionId !== sessionId) this.send({ type: "leave", session_id: this.sessionId });
    this.sessionId = sessionId;
    this.send({ type: "join", session_id: sessionId });
  }

  /** False when the question could not be sent. */
  ask(sessionId: string, content: string): boolean {
    return this.send({ type: "ask", session_id: sessionId, content });
  }

  private send(message: object): boolean {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }

  private connect(): void {
    this.handlers.state("connecting");
    const socket = new WebSocket(this.address);
    this.socket = socket;
    socket.onopen = () => {
      this.attempt = 0;
      if (this.sessionId) this.send({ type: "join", session_id: this.sessionId });
      this.pinger = setInterval(() => this.send({ type: "ping" }), PING_EVERY);
      this.handlers.state("open");
    };
    socket.onmessage = (message: MessageEvent<string>) => this.handlers.event(JSON.parse(message.data) as LiveEvent);
    socket.onclose = () => {
      clearInterval(this.pinger);
      if (this.stopped || this.socket !== socket) return;
      this.handlers.state("waiting");
      this.timer = setTimeout(() => this.connect(), delay(this.attempt));
      this.attempt += 1;
    };
  }
}
