import createClient from 'openapi-fetch';
import type { components, paths } from './schema';

/** The gateway's API as the cookie of this page may use it. Paths, bodies and answers are those of `/openapi.json`. */
export const api = createClient<paths>({ baseUrl: location.origin, credentials: 'same-origin' });

export type Shapes = components['schemas'];

/** What the gateway refused, or what went wrong on the way to it (code `unreachable`). `message` is written for a person. */
export class Refused extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

interface Asked<T> {
  data?: { data: T } | undefined;
  error?: unknown;
  response: Response;
}

/** The `data` of an envelope. Throws `Refused`. */
export async function told<T>(asking: Promise<Asked<T>>): Promise<T> {
  let asked: Asked<T>;
  try {
    asked = await asking;
  } catch {
    throw new Refused('unreachable', 'The gateway does not answer. Is it running? rootlink status says so.', 0);
  }
  if (asked.data !== undefined) return asked.data.data;
  throw refusal(asked.error, asked.response.status);
}

export function refusal(body: unknown, status: number): Refused {
  const error = (body as { error?: { code?: unknown; message?: unknown } } | undefined)?.error;
  if (typeof error?.code === 'string' && typeof error.message === 'string') return new Refused(error.code, error.message, status);
  return new Refused('unreachable', `The gateway answered ${status}, and nothing that can be read.`, status);
}

/** The words of anything thrown. */
export function words(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
