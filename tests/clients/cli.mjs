// What the two Node drivers share: the command line, and where the installed packages are.
// The command line and the output are described in README.md.

import { createRequire } from 'node:module';
import { join } from 'node:path';

export const TIMEOUT_MS = 30_000;

const USAGE = `usage: drive --transport http|sse --url URL [--token TOKEN | --oauth JSON] [--era modern|legacy] STEP...
       drive --transport stdio [--era modern|legacy] STEP... -- COMMAND [ARG...]
a STEP is one of those in README.md`;

function usageError(message) {
  console.error(`${message}\n${USAGE}`);
  process.exit(2);
}

function parseObject(json) {
  try {
    const value = JSON.parse(json);
    return value !== null && typeof value === 'object' && !Array.isArray(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Each step is { line, args }: `line` is how its output line begins. */
function parseStep(text) {
  if (['list', 'resources', 'prompts'].includes(text)) return { line: { step: text } };
  if (text.startsWith('read:')) return { line: { step: 'read', uri: text.slice('read:'.length) } };
  const [, step, name, json] =
    /^(call|progress|cancel|get):([^:]+):(.*)$/s.exec(text) ?? usageError(`not a step: ${text}`);
  const args = parseObject(json) ?? usageError(`the arguments are not a JSON object in ${text}`);
  return { line: step === 'get' ? { step, prompt: name } : { step, tool: name }, args };
}

export function parseCommandLine(argv) {
  const dashes = argv.indexOf('--');
  const own = dashes < 0 ? argv : argv.slice(0, dashes);
  const options = { command: dashes < 0 ? [] : argv.slice(dashes + 1), steps: [] };
  for (let i = 0; i < own.length; i++) {
    if (['--transport', '--url', '--token', '--oauth', '--era'].includes(own[i])) {
      options[own[i].slice(2)] = own[i + 1] ?? usageError(`${own[i]} needs a value`);
      i++;
    } else if (own[i].startsWith('-')) {
      usageError(`unknown option: ${own[i]}`);
    } else {
      options.steps.push(parseStep(own[i]));
    }
  }
  if (options.oauth) options.oauth = parseObject(options.oauth) ?? usageError('--oauth is not a JSON object');
  const { transport, url, token, oauth, era, command, steps } = options;
  if (!['http', 'sse', 'stdio'].includes(transport)) usageError('--transport is http, sse or stdio');
  if (![undefined, 'modern', 'legacy'].includes(era)) usageError('--era is modern or legacy');
  if (steps.length === 0) usageError('no STEP given');
  if (transport !== 'stdio' && (!url || command.length > 0)) {
    usageError(`--transport ${transport} needs --url, and no COMMAND`);
  }
  if (transport === 'stdio' && (command.length === 0 || url || token || oauth)) {
    usageError('--transport stdio needs -- COMMAND, and none of --url, --token and --oauth');
  }
  return options;
}

export const emit = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

export const textOf = (content) =>
  (content ?? []).filter((block) => block.type === 'text').map((block) => block.text).join('\n');

/** What is put together of the pages of two lists. */
export const listedResources = (resources, templates) => ({
  uris: resources.map((resource) => resource.uri),
  templates: templates.map((template) => template.uriTemplate),
});

/** `require` as seen from the installed packages, which lie in another folder than the drivers. */
export function installedRequire() {
  const dir = process.env.CALLGATE_CLIENTS_DIR ?? usageError('CALLGATE_CLIENTS_DIR is not set; use run.sh');
  return createRequire(join(dir, 'npm', 'package.json'));
}
