/**
 * Lanes: pure tests side by side; tests on the real kernel one file at a time per worker, each in its own "hosts".
 * The vm lane exists only inside the virtual machine of test/vm/run, which sets LIBCNM_VM.
 */
const common = {
  rootDir: __dirname,
  testEnvironment: 'node',
  transform: { '^.+\\.ts$': ['@swc/jest', { jsc: { target: 'es2022', parser: { syntax: 'typescript' } }, module: { type: 'commonjs' } }] },
  moduleNameMapper: { '^libcnm$': '<rootDir>/lib/index.ts', '^libcnm/api$': '<rootDir>/lib/api/index.ts', '^libcnm/testing$': '<rootDir>/lib/testing/index.ts' },
  modulePathIgnorePatterns: ['<rootDir>/dist/', '<rootDir>/native/build/'],
}
const lane = (displayName, ...globs) => ({ ...common, displayName, testMatch: globs.map(g => `<rootDir>/${g}`) })

module.exports = {
  testTimeout: 60_000,
  maxWorkers: 2,
  // A worker is replaced after each file: every one starts with a fresh process, as programs do.
  workerIdleMemoryLimit: 1024,
  projects: [
    lane('unit', 'test/unit/**/*.test.ts', 'test/contract/**/*.test.ts', 'test/flow/**/*.test.ts'),
    lane('examples', 'examples/**/*.test.ts'),
    lane('kernel', 'test/kernel/**/*.test.ts', 'test/article/**/*.test.ts'),
    lane('native', 'test/native/**/*.test.ts'),
    ...(process.env.LIBCNM_VM ? [lane('vm', 'test/vm/**/*.test.ts')] : []),
  ],
}
