export interface Source {
  slug: string;
  title: string;
  score: number;
}

export interface Message {
  id: string;
  session_id: string;
  role: "user" | "assistant";
  content: string;
  sources: Source[];
  cached: boolean;
  instance: string;
  created_at: string;
}

export interface Session {
  id: string;
  title: string;
  created_at: string;
  updated_at: string;
}

export interface Readiness {
  status: "ready" | "degraded" | "unavailable";
  version: string;
  instance: string;
  checks: Record<string, { state: string }>;
}

/** The server answered, and refused. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

async function call<T>(path: string, init?: RequestInit): Promise<T> {
  const response = await fetch(path, { credentials: "same-origin", ...init });
  if (!response.ok) {
    const body: unknown = await response.json().catch(() => null);
    const detail = body && typeof body === "object" && "detail" in body ? body.detail : null;
    throw new ApiError(response.status, typeof detail === "string" ? detail : `The server answered ${response.status}.`);
  }
  return (await response.json()) as T;
}

export const listSessions = () => call<Session[]>("/api/sessions");
export const getSession = (id: string) => call<Session>(`/api/sessions/${encodeURIComponent(id)}`);
export const createSession = () => call<Session>("/api/sessions", { method: "POST" });
export const listMessages = (id: string) => call<Message[]>(`/api/sessions/${encodeURIComponent(id)}/messages`);

/** Readiness has a body when it is bad, too; null means that nobody answered. */
export async function readiness(): Promise<Readiness | null> {
  try {
    const response = await fetch("/api/ready", { cache: "no-store" });
    const body = (await response.json()) as Partial<Readiness>;
    return body.status && body.checks ? (body as Readiness) : null;
  } catch {
    return null;
  }
}
