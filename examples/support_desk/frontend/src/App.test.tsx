import { act, render, screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { App } from "./App";
import type { Message } from "./api";
import { delay } from "./live";

/** A WebSocket whose other end is the test. */
class FakeSocket {
  static readonly OPEN = 1;
  static all: FakeSocket[] = [];
  readyState = 0;
  sent: Record<string, string>[] = [];
  onopen?: () => void;
  onclose?: (event: { code: number }) => void;
  onmessage?: (event: { data: string }) => void;

  constructor(readonly address: string) {
    FakeSocket.all.push(this);
  }

  static get last(): FakeSocket {
    const socket = FakeSocket.all.at(-1);
    if (!socket) throw new Error("no WebSocket was opened");
    return socket;
  }

  send(text: string) {
    this.sent.push(JSON.parse(text) as Record<string, string>);
  }

  close() {
    this.readyState = 3;
  }

  opens() {
    this.readyState = 1;
    act(() => this.onopen?.());
  }

  breaks(code: number) {
    this.readyState = 3;
    act(() => this.onclose?.({ code }));
  }

  says(event: object) {
    act(() => this.onmessage?.({ data: JSON.stringify(event) }));
  }
}

const SESSION = "11111111-1111-4111-8111-111111111111";

function message(id: string, role: Message["role"], content: string, more: Partial<Message> = {}): Message {
  return {
    id,
    session_id: SESSION,
    role,
    content,
    sources: [],
    cached: false,
    instance: "app1",
    created_at: "2026-01-01T00:00:00+00:00",
    ...more,
  };
}

let stored: Message[];
let readiness: { status: number; body: unknown };
let requests: string[];

beforeEach(() => {
  FakeSocket.all = [];
  stored = [];
  requests = [];
  readiness = {
    status: 200,
    body: { status: "ready", version: "1.2.3", instance: "app1", checks: { redis: { state: "ok" } } },
  };
  history.replaceState(null, "", "/");
  vi.stubGlobal("WebSocket", FakeSocket);
  vi.stubGlobal(
    "fetch",
    vi.fn((path: string, init?: RequestInit) => {
      requests.push(`${init?.method ?? "GET"} ${path}`);
      const session = { id: SESSION, title: "How do I cancel?", created_at: "", updated_at: "" };
      if (path === "/api/ready") return Promise.resolve(Response.json(readiness.body, { status: readiness.status }));
      if (path.endsWith("/messages")) return Promise.resolve(Response.json(stored));
      if (init?.method === "POST") return Promise.resolve(Response.json(session, { status: 201 }));
      return Promise.resolve(Response.json([session]));
    }),
  );
});

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

async function ask(text: string) {
  const user = userEvent.setup();
  await user.type(screen.getByTestId("question-input"), text);
  await user.click(screen.getByTestId("ask-button"));
}

describe("asking", () => {
  it("shows the answer while it arrives, then whole, with its sources", async () => {
    render(<App />);
    FakeSocket.last.opens();
    await ask("How do I cancel?");
    await waitFor(() =>
      expect(FakeSocket.last.sent).toContainEqual({ type: "ask", session_id: SESSION, content: "How do I cancel?" }),
    );
    expect(location.search).toBe(`?session=${SESSION}`);
    FakeSocket.last.says({ type: "message", session_id: SESSION, message: message("q", "user", "How do I cancel?") });
    FakeSocket.last.says({ type: "piece", session_id: SESSION, message_id: "a", text: "An owner " });
    FakeSocket.last.says({ type: "piece", session_id: SESSION, message_id: "a", text: "cancels." });
    expect(screen.getByTestId("partial")).toHaveTextContent("An owner cancels.");
    const answer = message("a", "assistant", "An owner cancels.", {
      sources: [{ slug: "cancel", title: "Cancel a subscription", score: 0.5 }],
    });
    FakeSocket.last.says({ type: "answer", session_id: SESSION, cached: false, message: answer });
    expect(screen.queryByTestId("partial")).toBeNull();
    expect(screen.getByTestId("answer")).toHaveTextContent("An owner cancels.");
    expect(screen.getByTestId("source")).toHaveTextContent("Cancel a subscription");
    expect(screen.queryByTestId("cached-badge")).toBeNull();
    expect(screen.getAllByTestId("message")).toHaveLength(2);
  });

  it("marks an answer from the cache", async () => {
    history.replaceState(null, "", `/?session=${SESSION}`);
    stored = [message("q", "user", "Again?"), message("a", "assistant", "As before.", { cached: true })];
    render(<App />);
    expect(await screen.findByTestId("cached-badge")).toHaveTextContent("from cache");
  });

  it("ignores events of other sessions", async () => {
    history.replaceState(null, "", `/?session=${SESSION}`);
    stored = [message("q", "user", "Mine")];
    render(<App />);
    FakeSocket.last.opens();
    await screen.findByText("Mine");
    const other = message("x", "user", "Not mine", { session_id: "another" });
    FakeSocket.last.says({ type: "message", session_id: "another", message: other });
    expect(screen.queryByText("Not mine")).toBeNull();
  });

  it("shows an error and lets one ask again", async () => {
    history.replaceState(null, "", `/?session=${SESSION}`);
    render(<App />);
    FakeSocket.last.opens();
    FakeSocket.last.says({ type: "message", session_id: SESSION, message: message("q", "user", "Hello?") });
    FakeSocket.last.says({ type: "error", code: "unavailable", detail: "Not now.", session_id: SESSION });
    expect(await screen.findByRole("alert")).toHaveTextContent("Not now.");
    await userEvent.type(screen.getByTestId("question-input"), "Now?");
    expect(screen.getByTestId("ask-button")).toBeEnabled();
  });

  it("cannot ask nothing, nor while the line is down", async () => {
    render(<App />);
    expect(screen.getByTestId("ask-button")).toBeDisabled();
    await userEvent.type(screen.getByTestId("question-input"), "Hello");
    expect(screen.getByTestId("ask-button")).toBeDisabled();
    FakeSocket.last.opens();
    expect(screen.getByTestId("ask-button")).toBeEnabled();
  });
});

describe("sessions", () => {
  it("brings the one in the address back after a reload", async () => {
    history.replaceState(null, "", `/?session=${SESSION}`);
    stored = [message("q", "user", "Kept?"), message("a", "assistant", "Kept.")];
    render(<App />);
    expect(await screen.findByText("Kept.")).toBeVisible();
    expect(requests).toContain(`GET /api/sessions/${SESSION}/messages`);
  });

  it("opens one from the list, and starts a new one", async () => {
    stored = [message("q", "user", "From the list")];
    render(<App />);
    await userEvent.click(await screen.findByTestId("session-item"));
    expect(await within(screen.getByTestId("messages")).findByText("From the list")).toBeVisible();
    expect(location.search).toBe(`?session=${SESSION}`);
    await userEvent.click(screen.getByTestId("new-session"));
    expect(screen.queryByText("From the list")).toBeNull();
    expect(location.search).toBe("");
  });
});

describe("the line", () => {
  it.each([1012, 1006])("comes back after %i, joins again and fetches what it missed", async (code) => {
    history.replaceState(null, "", `/?session=${SESSION}`);
    render(<App />);
    FakeSocket.last.opens();
    expect(screen.getByTestId("health")).toHaveAttribute("data-link", "open");
    stored = [message("q", "user", "Meanwhile")];
    const first = FakeSocket.last;
    first.breaks(code);
    expect(screen.getByTestId("health")).toHaveAttribute("data-link", "waiting");
    await waitFor(() => expect(FakeSocket.last).not.toBe(first), { timeout: 2000 });
    FakeSocket.last.opens();
    expect(FakeSocket.last.sent).toContainEqual({ type: "join", session_id: SESSION });
    expect(await screen.findByText("Meanwhile")).toBeVisible();
  });

  it("waits longer each time, up to a limit, and never the same", () => {
    expect(delay(0, () => 0)).toBe(50);
    expect(delay(0, () => 1)).toBe(350);
    expect(delay(3, () => 1)).toBe(2450);
    expect(delay(40, () => 1)).toBe(10_050);
    expect(new Set(Array.from({ length: 20 }, () => delay(3))).size).toBeGreaterThan(10);
  });
});

describe("health", () => {
  it("shows state and version", async () => {
    render(<App />);
    await waitFor(() => expect(screen.getByTestId("health")).toHaveAttribute("data-status", "ready"));
    expect(screen.getByTestId("version")).toHaveTextContent("1.2.3");
    expect(screen.getByTestId("instance")).toHaveTextContent("app1");
  });

  it("shows that a store is away", async () => {
    readiness = { status: 503, body: { ...(readiness.body as object), status: "unavailable" } };
    render(<App />);
    await waitFor(() => expect(screen.getByTestId("health")).toHaveAttribute("data-status", "unavailable"));
  });

  it("shows that nobody answers", async () => {
    readiness = { status: 502, body: {} };
    render(<App />);
    await waitFor(() => expect(screen.getByTestId("health")).toHaveAttribute("data-status", "unknown"));
  });
});
