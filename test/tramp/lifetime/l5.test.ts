import { expect, test } from 'vitest';
import type { KernelBug } from '../../../tramp/index.ts';
import { Stage } from './stage.ts';

/** L5: the image is emitted, and then the call at the entry cannot be put in place. */
async function registeringFails(bugs: readonly KernelBug[]) {
  const stage = await Stage.create({ bugs });
  const f = stage.guest.addFunction('f');
  const p = stage.guest.addProgram('P', 'fentry');
  stage.kernel.fail.arm('register');
  expect(() => stage.attach(p, f)).toThrow(/register/);
  stage.settle();
  const { images, modmem, kallsyms } = stage.kernel;
  const left = { images: images.size, pages: modmem.pages, ksyms: kallsyms.list().filter(isImage).length };
  stage.attach(p, f);
  stage.detach(p, f);
  stage.settle();
  stage.close();
  return left;
}

const isImage = ({ name }: { readonly name: string }): boolean => name.startsWith('bpf_trampoline_');

test('image, charge and symbol are given back', async () => {
  expect(await registeringFails([])).toEqual({ images: 0, pages: 0, ksyms: 0 });
});

test('L5: they are leaked', async () => {
  expect(await registeringFails(['L5'])).toEqual({ images: 1, pages: 1, ksyms: 1 });
});
