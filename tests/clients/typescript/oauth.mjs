// What drive.mjs needs for `--oauth`: the SDK's own providers, and a user agent without a browser.

import { emit, installedRequire } from '../cli.mjs';

const { ClientCredentialsProvider, PrivateKeyJwtProvider } = installedRequire()('@modelcontextprotocol/client');

const REDIRECT = 'http://127.0.0.1:1/callback'; // nobody listens there: the answer is read from the redirect itself

/** Keeps everything in memory, and opens the authorization URL by itself. */
class CodeProvider {
  redirectUrl = REDIRECT;
  clientMetadata = {
    client_name: 'callgate-test-typescript',
    redirect_uris: [REDIRECT],
    grant_types: ['authorization_code', 'refresh_token'],
    token_endpoint_auth_method: 'none',
  };
  #kept = {};

  constructor(clientId) {
    if (clientId) this.#kept.client = { client_id: clientId, redirect_uris: [REDIRECT] };
  }

  state() {
    return (this.#kept.state = crypto.randomUUID());
  }
  clientInformation() {
    return this.#kept.client;
  }
  saveClientInformation(client) {
    this.#kept.client = client;
  }
  tokens() {
    return this.#kept.tokens;
  }
  saveTokens(tokens) {
    this.#kept.tokens = tokens;
  }
  codeVerifier() {
    return this.#kept.verifier;
  }
  saveCodeVerifier(verifier) {
    this.#kept.verifier = verifier;
  }
  discoveryState() {
    return this.#kept.discovery;
  }
  saveDiscoveryState(discovery) {
    this.#kept.discovery = discovery;
  }

  async redirectToAuthorization(url) {
    const asked = url.searchParams;
    emit({ step: 'authorize', scope: asked.get('scope'), resource: asked.get('resource') });
    const response = await fetch(url, { redirect: 'manual' });
    const location = response.headers.get('location') ?? '';
    if (response.status !== 302 || !location.startsWith(`${REDIRECT}?`)) {
      throw new Error(`no redirect to the client: ${response.status} ${location || (await response.text())}`);
    }
    this.#kept.answer = new URL(location).searchParams;
  }

  /** What the user came back with, once; undefined if nobody was sent. */
  takeAnswer() {
    const { answer, state } = this.#kept;
    this.#kept.answer = undefined;
    if (answer && answer.get('state') !== state) throw new Error('the state is not the one that was sent');
    return answer;
  }
}

/** The SDK's provider for what `--oauth` asks for. */
export function providerFor(asked) {
  const { client_id: clientId, client_secret: clientSecret, private_key: privateKey, algorithm, scope } = asked;
  const expectedIssuer = asked.issuer;
  if (clientSecret) return new ClientCredentialsProvider({ clientId, clientSecret, scope, expectedIssuer });
  if (privateKey) return new PrivateKeyJwtProvider({ clientId, privateKey, algorithm, scope, expectedIssuer });
  return new CodeProvider(clientId);
}

/**
 * Does what needs a token. If the SDK has sent the user away for one, lets it finish with what the user
 * came back with, and does it again.
 */
export async function withUser(provider, finish, act) {
  try {
    return await act();
  } catch (error) {
    const answer = provider?.takeAnswer?.();
    if (!answer) throw error;
    await finish(answer);
    return act();
  }
}
