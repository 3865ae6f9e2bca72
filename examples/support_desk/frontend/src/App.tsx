import { type FormEvent, type KeyboardEvent, useCallback, useEffect, useRef, useState } from "react";
import * as api from "./api";
import type { Message, Readiness, Session } from "./api";
import { type LinkState, type LiveEvent, LiveLink } from "./live";

const HEALTH_EVERY = 10_000;
// Milliseconds without a piece of the answer after which a question may be asked again.
const ANSWER_WITHIN = 30_000;
const EXAMPLES = ["How do I reset my password?", "Can I get a refund?", "How do I invite a colleague?"];

function sessionInAddress(): string | null {
  return new URLSearchParams(location.search).get("session");
}

function showInAddress(id: string | null): void {
  const wanted = id ? `/?session=${id}` : "/";
  if (location.pathname + location.search !== wanted) history.pushState(null, "", wanted);
}

/** Messages by id: the page may hear of one twice, from the API and over the WebSocket. */
function merged(messages: Message[], message: Message): Message[] {
  const index = messages.findIndex((other) => other.id === message.id);
  return index < 0 ? [...messages, message] : messages.map((other, at) => (at === index ? message : other));
}

export function App() {
  const [sessions, setSessions] = useState<Session[]>([]);
  const [sessionId, setSessionId] = useState<string | null>(sessionInAddress);
  const [messages, setMessages] = useState<Message[]>([]);
  const [partial, setPartial] = useState<{ id: string; text: string } | null>(null);
  const [pending, setPending] = useState(false);
  const [question, setQuestion] = useState("");
  const [problem, setProblem] = useState<string | null>(null);
  const [linkState, setLinkState] = useState<LinkState>("connecting");
  const [health, setHealth] = useState<Readiness | null | undefined>(undefined);
  const link = useRef<LiveLink | null>(null);
  const current = useRef(sessionId);
  current.current = sessionId;

  const refreshSessions = useCallback(() => {
    api.listSessions().then(setSessions, () => {});
  }, []);

  const refreshMessages = useCallback(async (id: string) => {
    try {
      const stored = await api.listMessages(id);
      if (current.current !== id) return;
      // What came over the WebSocket while this was on its way is newer.
      setMessages((known) =>
        known.filter((message) => message.session_id === id).reduce(merged, stored),
      );
      if (stored.at(-1)?.role === "assistant") {
        setPending(false);
        setPartial(null);
      }
    } catch (error) {
      if (current.current !== id) return;
      if (error instanceof api.ApiError && error.status === 404) {
        showInAddress(null);
        current.current = null;
        setSessionId(null);
        setProblem("This conversation no longer exists.");
      } else {
        setProblem("The conversation could not be loaded. It is tried again when the connection is back.");
      }
    }
  }, []);

  const receive = useCallback(
    (event: LiveEvent) => {
      if (!("session_id" in event) || event.session_id !== current.current) return;
      if (event.type === "message") {
        setMessages((known) => merged(known, event.message));
        setPending(true);
        refreshSessions();
      } else if (event.type === "piece") {
        setPartial((known) => ({
          id: event.message_id,
          text: known?.id === event.message_id ? known.text + event.text : event.text,
        }));
      } else if (event.type === "answer") {
        setMessages((known) => merged(known, event.message));
        setPartial(null);
        setPending(false);
      } else if (event.type === "error") {
        setProblem(event.detail);
        setPartial(null);
        setPending(false);
      }
    },
    [refreshSessions],
  );

  useEffect(() => {
    const live = new LiveLink({
      event: receive,
      state: (state) => {
        setLinkState(state);
        // Something may have been said while the line was down.
        if (state === "open") {
          refreshSessions();
          if (current.current) void refreshMessages(current.current);
        }
      },
    });
    link.current = live;
    live.start();
    return () => live.stop();
  }, [receive, refreshMessages, refreshSessions]);

  const show = useCallback((id: string | null) => {
    if (id === current.current) return;
    current.current = id;
    setSessionId(id);
    setMessages([]);
    setPartial(null);
    setPending(false);
    setProblem(null);
  }, []);

  useEffect(() => {
    if (!sessionId) return;
    link.current?.join(sessionId);
    void refreshMessages(sessionId);
  }, [sessionId, refreshMessages]);

  useEffect(() => {
    if (!pending) return;
    // The instance that was answering may be gone.
    const timer = setTimeout(() => {
      setPending(false);
      setPartial(null);
      setProblem("No answer arrived. Please ask again.");
    }, ANSWER_WITHIN);
    return () => clearTimeout(timer);
  }, [pending, partial]);

  useEffect(() => {
    const look = () => void api.readiness().then(setHealth);
    look();
    refreshSessions();
    const timer = setInterval(look, HEALTH_EVERY);
    const back = () => show(sessionInAddress());
    addEventListener("popstate", back);
    return () => {
      clearInterval(timer);
      removeEventListener("popstate", back);
    };
  }, [refreshSessions, show]);

  const open = (id: string | null) => {
    showInAddress(id);
    show(id);
  };

  const ask = async (text: string) => {
    const content = text.trim();
    if (!content || pending) return;
    setProblem(null);
    try {
      let id = sessionId;
      if (!id) {
        id = (await api.createSession()).id;
        open(id);
        link.current?.join(id);
      }
      if (!link.current?.ask(id, content)) {
        setProblem("Not connected. Your question was not sent; it is still in the box.");
        return;
      }
      setPending(true);
      setQuestion("");
    } catch (error) {
      setProblem(error instanceof api.ApiError ? error.message : "The server cannot be reached.");
    }
  };

  return (
    <div className="layout">
      <aside className="sidebar" aria-label="Conversations">
        <h1 className="brand">
          <img src="/favicon.svg" alt="" width="28" height="28" /> Support desk
        </h1>
        <button type="button" className="new" data-testid="new-session" onClick={() => open(null)}>
          New conversation
        </button>
        <nav aria-label="Your conversations">
          <ul className="sessions">
            {sessions.map((session) => (
              <li key={session.id}>
                <button
                  type="button"
                  data-testid="session-item"
                  data-session-id={session.id}
                  aria-current={session.id === sessionId ? "page" : undefined}
                  onClick={() => open(session.id)}
                >
                  {session.title || "New conversation"}
                </button>
              </li>
            ))}
          </ul>
        </nav>
        <Health health={health} linkState={linkState} />
      </aside>
      <main className="chat">
        <Conversation messages={messages} partial={partial} pending={pending} onExample={(text) => void ask(text)} />
        {problem && (
          <p className="problem" role="alert" data-testid="problem">
            {problem}
          </p>
        )}
        <Composer
          value={question}
          onChange={setQuestion}
          onAsk={() => void ask(question)}
          disabled={pending || linkState !== "open"}
        />
      </main>
    </div>
  );
}

function Conversation(props: {
  messages: Message[];
  partial: { id: string; text: string } | null;
  pending: boolean;
  onExample: (text: string) => void;
}) {
  const { messages, partial, pending } = props;
  const end = useRef<HTMLDivElement>(null);
  useEffect(() => {
    // Returns nothing: newer browsers give a promise here, which React would call as its clean-up.
    end.current?.scrollIntoView({ block: "end" });
  }, [messages, partial, pending]);
  const streaming = partial && !messages.some((message) => message.id === partial.id) ? partial : null;
  return (
    <div className="messages" role="log" aria-live="polite" aria-label="Conversation" data-testid="messages" tabIndex={0}>
      {messages.length === 0 && !pending && (
        <div className="welcome">
          <h2>What can we help with?</h2>
          <p>Ask in your own words. Answers come from our help articles, at any hour.</p>
          <div className="examples">
            {EXAMPLES.map((text) => (
              <button type="button" key={text} data-testid="example" onClick={() => props.onExample(text)}>
                {text}
              </button>
            ))}
          </div>
        </div>
      )}
      {messages.map((message) => (
        <Bubble key={message.id} message={message} />
      ))}
      {streaming && (
        <article className="bubble assistant" data-testid="partial" aria-busy="true">
          <p className="text">{streaming.text}</p>
        </article>
      )}
      {pending && !streaming && (
        <p className="thinking" data-testid="thinking">
          Looking it up…
        </p>
      )}
      <div ref={end} />
    </div>
  );
}

function Bubble({ message }: { message: Message }) {
  const answer = message.role === "assistant";
  return (
    <article
      className={`bubble ${message.role}`}
      data-testid="message"
      data-role={message.role}
      data-instance={message.instance}
      aria-label={answer ? "Answer" : "Your question"}
    >
      <p className="text" data-testid={answer ? "answer" : "question"}>
        {message.content}
      </p>
      {answer && (message.cached || message.sources.length > 0) && (
        <footer>
          {message.cached && (
            <span className="badge" data-testid="cached-badge" title="Asked before: this answer was kept">
              from cache
            </span>
          )}
          {message.sources.map((source) => (
            <span className="source" key={source.slug} data-testid="source" data-slug={source.slug}>
              {source.title}
            </span>
          ))}
        </footer>
      )}
    </article>
  );
}

function Composer(props: { value: string; onChange: (text: string) => void; onAsk: () => void; disabled: boolean }) {
  const box = useRef<HTMLTextAreaElement>(null);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    props.onAsk();
    box.current?.focus();
  };
  const key = (event: KeyboardEvent) => {
    if (event.key === "Enter" && !event.shiftKey && !event.nativeEvent.isComposing) {
      event.preventDefault();
      if (!props.disabled) props.onAsk();
    }
  };
  return (
    <form className="composer" onSubmit={submit}>
      <label htmlFor="question" className="hidden">
        Your question
      </label>
      <textarea
        id="question"
        ref={box}
        data-testid="question-input"
        rows={2}
        maxLength={2000}
        placeholder="Ask a question"
        value={props.value}
        onChange={(event) => props.onChange(event.target.value)}
        onKeyDown={key}
      />
      <button type="submit" data-testid="ask-button" disabled={props.disabled || !props.value.trim()}>
        Ask
      </button>
    </form>
  );
}

const HEALTH_TEXT = {
  ready: "All systems work",
  degraded: "Works, without the shared cache",
  unavailable: "Temporarily unavailable",
  unknown: "No answer from the server",
  checking: "Checking…",
};

function Health({ health, linkState }: { health: Readiness | null | undefined; linkState: LinkState }) {
  const status = health === undefined ? "checking" : (health?.status ?? "unknown");
  const stores = health
    ? Object.entries(health.checks)
        .map(([name, check]) => `${name}: ${check.state}`)
        .join(", ")
    : undefined;
  return (
    <div className="health" role="status" data-testid="health" data-status={status} data-link={linkState} title={stores}>
      <span className={`dot ${status}`} aria-hidden="true" />
      <span>
        {HEALTH_TEXT[status]}
        <br />
        <small>
          {linkState === "open" ? "Live" : "Reconnecting…"}
          {health && (
            <>
              {" · "}
              <span data-testid="version">{health.version}</span>
              {" · "}
              <span data-testid="instance">{health.instance}</span>
            </>
          )}
        </small>
      </span>
    </div>
  );
}
