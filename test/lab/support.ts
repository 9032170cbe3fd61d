import { fileURLToPath } from 'node:url';
import { afterEach } from 'vitest';
import { createLab, type Lab, type LabOptions, type ProgramObject, type Target } from '../../lab/index.ts';
import { type addrAdd, hex64, KernelError, toHex } from '../../lib/index.ts';

/** The path of an object that gcc made. */
export function fixture(name: string): string {
  return fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));
}

const open = new Set<Lab>();

afterEach(() => {
  for (const lab of open) lab.close();
  open.clear();
});

/** A lab that is closed after the test. */
export async function freshLab(options?: LabOptions): Promise<Lab> {
  const lab = await createLab(options);
  open.add(lab);
  return lab;
}

/** A lab with one fixture loaded as target and the programs of probes.o. */
export async function labWith(
  target: string,
  options?: LabOptions,
): Promise<{ readonly lab: Lab; readonly target: Target; readonly probes: ProgramObject }> {
  const lab = await freshLab(options);
  const loaded = lab.load(fixture(target));
  // probes.o calls a function of demo.o, so that has to be there for it to link.
  if (loaded.module.symbol('schedule_coffee') === undefined) lab.load(fixture('demo.o'));
  return { lab, target: loaded, probes: lab.loadPrograms(fixture('probes.o')) };
}

/** Five bytes at the entry of a function, as hex. */
export function siteBytes(lab: Lab, target: Target, fn: string): string {
  return toHex(lab.machine.memory.bytes(symbolAddress(target, fn), 5));
}

export function symbolAddress({ module }: Pick<Target, 'module'>, name: string): ReturnType<typeof addrAdd> {
  const symbol = module.symbol(name);
  if (symbol === undefined) throw new Error(`${module.name} has no ${name}`);
  return symbol.address;
}

export const NOP5 = '0f1f440000';

/** `call` from a site to an image. */
export function callBytes(site: bigint, image: bigint): string {
  const rel = Buffer.alloc(4);
  rel.writeInt32LE(Number(BigInt.asIntN(64, image - site - 5n)));
  return `e8${rel.toString('hex')}`;
}

/**
 * All that an operation may change: bytes at function entries, symbols, memory charge, trampolines, images on
 * their way out, module references, counters, grace periods, warnings. Two equal states mean that nothing was.
 */
export function stateOf(lab: Lab): unknown {
  const { kernel, machine } = lab;
  return {
    sites: kernel.modules.flatMap(({ contents }) =>
      contents.functions.map(({ name, address, sizeBytes }) => [
        name,
        toHex(machine.memory.bytes(address, sizeBytes)),
        kernel.ftrace.direct(address)?.toString(16),
      ]),
    ),
    symbols: kernel.kallsyms.lines(),
    chargedPages: kernel.modmem.pages,
    trampolines: kernel.trampolines.list().map((tr) => ({
      key: hex64(tr.key),
      references: tr.references,
      programs: Object.values(tr.progs).map((progs) => progs.map((prog) => prog.name)),
      image: tr.curImage?.ksym.name,
      bytes: tr.curImage === undefined ? undefined : toHex(tr.curImage.bytes()),
      imageReferences: tr.curImage?.pcref.references(),
      selector: tr.selector,
    })),
    retired: [...kernel.retired].map((im) => [im.ksym.name, im.state]),
    modules: kernel.modules.map((module) => [module.name, module.references]),
    counters: lab
      .attachments()
      .map(({ prog, function: fn }) => [fn, prog.name, machine.cpus.map(({ id }) => prog.counters(id))]),
    waiting: [
      ...Object.values(kernel.grace.flavours).map((flavour) => flavour.pending),
      kernel.grace.pendingWork,
    ],
    warnings: [...kernel.warnings],
  };
}

/** The KernelError that `work` throws; anything else fails the test. */
export function kernelError(work: () => unknown): KernelError {
  try {
    work();
  } catch (error) {
    if (error instanceof KernelError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}
