// Drives an MCP server with the official TypeScript SDK; see ../README.md for the command line and output.

import { emit, installedRequire, listedResources, parseCommandLine, textOf, TIMEOUT_MS } from '../cli.mjs';
import { providerFor, withUser } from './oauth.mjs';

// The SDK says some things with console.debug, which Node writes to stdout.
console.debug = console.info = console.log = console.error;

const require = installedRequire();
const { Client, ProtocolError, SSEClientTransport, StreamableHTTPClientTransport } = require('@modelcontextprotocol/client');
const { StdioClientTransport } = require('@modelcontextprotocol/client/stdio');

const options = parseCommandLine(process.argv.slice(2));
const wait = { timeout: TIMEOUT_MS };
// Without a cursor the SDK follows all pages; 'refresh' goes past its cache, so that each list step reaches the server.
const anew = { ...wait, cacheMode: 'refresh' };
// How long a call is waited for that is given up.
const GIVEN_UP_MS = 500;

// The status of a refused POST: some of the SDK's errors do not carry it. A refused GET or DELETE is
// no answer to a step: a server may do without them.
let refusal;
async function watchedFetch(url, init) {
  const response = await fetch(url, init);
  // One that was refused for want of a token may be asked again with one.
  if (init?.method === 'POST') refusal = response.status >= 400 ? response.status : undefined;
  return response;
}

// Whether the server's latest message was a JSON-RPC error. The SDK throws ProtocolError also for what
// it finds wrong itself, for instance an answer that does not fit the tool's outputSchema.
let serverSentError = true; // while connecting, only the server's errors are ProtocolErrors
function watchMessages(transport) {
  const deliver = transport.onmessage;
  transport.onmessage = (message, extra) => {
    serverSentError = 'error' in message;
    deliver(message, extra);
  };
}

/** The HTTP status (positive) or the server's JSON-RPC code (negative); null if there was neither. */
function codeOf(error) {
  if (refusal === 401 || refusal === 403) return refusal;
  if (error instanceof ProtocolError && serverSentError) return error.code;
  return refusal ?? null;
}

/** Writes the step's line; tells whether the error was an answer. */
function emitError(line, error) {
  const code = codeOf(error);
  emit({ ...line, error: { code, message: error.message } });
  // fetch says only "fetch failed"; the reason is in the causes.
  for (let { cause } = error; cause; { cause } = cause) console.error(`caused by: ${cause.message}`);
  return code !== null;
}

const authProvider = options.oauth && providerFor(options.oauth);

function openTransport() {
  if (options.transport === 'stdio') {
    const [command, ...args] = options.command;
    return new StdioClientTransport({ command, args });
  }
  const headers = options.token ? { Authorization: `Bearer ${options.token}` } : {};
  const OverHttp = options.transport === 'sse' ? SSEClientTransport : StreamableHTTPClientTransport;
  return new OverHttp(new URL(options.url), {
    requestInit: { headers },
    fetch: watchedFetch,
    authProvider,
  });
}

async function runStep(client, { line, args }) {
  switch (line.step) {
    case 'list': {
      const { tools } = await client.listTools(undefined, anew);
      return { tools: tools.map((tool) => tool.name) };
    }
    case 'resources': {
      const { resources } = await client.listResources(undefined, anew);
      const { resourceTemplates } = await client.listResourceTemplates(undefined, anew);
      return listedResources(resources, resourceTemplates);
    }
    case 'prompts': {
      const { prompts } = await client.listPrompts(undefined, anew);
      return { prompts: prompts.map((prompt) => prompt.name) };
    }
    case 'read':
      return { contents: (await client.readResource({ uri: line.uri }, anew)).contents };
    case 'get':
      return { messages: (await client.getPrompt({ name: line.prompt, arguments: args }, wait)).messages };
    case 'cancel':
      return giveUp(client, line.tool, args);
  }
  const progress = [];
  const onprogress = line.step === 'progress' ? (heard) => progress.push([heard.progress, heard.total]) : undefined;
  const result = await client.callTool({ name: line.tool, arguments: args }, { ...wait, onprogress });
  return {
    isError: result.isError ?? false,
    text: textOf(result.content),
    structured: result.structuredContent ?? null,
    ...(onprogress && { progress }),
  };
}

async function giveUp(client, name, args) {
  const signal = AbortSignal.timeout(GIVEN_UP_MS);
  try {
    await client.callTool({ name, arguments: args }, { ...wait, signal });
    return { cancelled: false };
  } catch (error) {
    if (!signal.aborted) throw error;
    return { cancelled: true };
  }
}

async function drive() {
  // The SDK's own default is 'legacy'. A pinned version is asked for with server/discover, without fallback.
  const mode = { legacy: 'legacy', modern: { pin: '2026-07-28' } }[options.era] ?? 'auto';
  let client, transport;
  const connect = async () => {
    client = new Client(
      { name: 'callgate-test-typescript', version: '1.0.0' },
      { versionNegotiation: { mode } },
    );
    transport = openTransport();
    await client.connect(transport, wait);
  };
  const finish = (answer) => transport.finishAuth(answer);
  const connectLine = { step: 'connect' };
  try {
    await withUser(authProvider, finish, connect);
  } catch (error) {
    emitError(connectLine, error);
    return 3;
  }
  watchMessages(transport);
  emit({
    ...connectLine,
    protocol: client.getNegotiatedProtocolVersion() ?? null,
    server: client.getServerVersion()?.name ?? null,
  });

  let exitCode = 0;
  for (const step of options.steps) {
    refusal = undefined;
    try {
      emit({ ...step.line, ...(await withUser(authProvider, finish, () => runStep(client, step))) });
    } catch (error) {
      if (!emitError(step.line, error)) exitCode = 1;
    }
  }

  // A session (legacy era, HTTP) is ended only when asked to.
  const closing = (async () => {
    await transport.terminateSession?.();
    await client.close();
  })().catch((error) => console.error(`closing failed: ${error.message}`));
  await Promise.race([closing, new Promise((resolve) => setTimeout(resolve, TIMEOUT_MS))]);
  return exitCode;
}

process.exitCode = await drive();
// Nothing the SDK may have left open shall keep the driver; its lines are out before that.
process.stdout.write('', () => process.exit());
