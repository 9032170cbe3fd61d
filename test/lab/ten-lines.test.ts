import { expect, test } from 'vitest';
import { createLab } from '../../lab/index.ts';

test('an fexit program sees arguments and result', async () => {
  const lab = await createLab({ revision: 'v5.15' });
  lab.load('test/fixtures/demo.o');
  lab.attach('fexit', 'schedule_coffee', await lab.assemble('probe', 'xor eax, eax\nret'));
  const { ret, seen } = lab.call('schedule_coffee', [2, 1, 300], { watch: true });
  expect(ret).toBe(67n);
  expect(seen).toMatchObject([{ program: 'probe', args: [2n, 1n, 300n], ret: 67n }]);
  lab.close();
});
