/** Go templates, as people write them after --format. */
import fc from 'fast-check'
import { parseTemplate, TemplateError } from '../../../lib/cli/template'

const DATA = {
  Name: 'web',
  Id: 'abc',
  Internal: false,
  Count: 3,
  Labels: { b: '2', a: '1', 'x.y': '3' },
  IPAM: { Config: [{ Subnet: '10.0.0.0/24' }, { Subnet: 'fd00::/64', Gateway: 'fd00::1' }] },
  Empty: [],
  Nothing: null,
  Label: (key: unknown) => `<${String(key)}>`,
}

test.each<[string, string]>([
  ['plain', 'plain'],
  ['{{.Name}}', 'web'],
  ['{{ .Name }}-{{.Id}}', 'web-abc'],
  ['{{.ID}}', 'abc'], // Docker's field, JSON's key
  ['{{.Nix}}', '<no value>'],
  ['{{.Nix.Nix}}', '<no value>'],
  ['{{.Nothing}}', '<nil>'],
  ['{{json .Labels}}', '{"b":"2","a":"1","x.y":"3"}'],
  ['{{.Labels}}', 'map[a:1 b:2 x.y:3]'],
  ['{{index .Labels "x.y"}}', '3'],
  ['{{index .Labels "nix"}}', ''],
  ['{{(index .IPAM.Config 1).Subnet}}', 'fd00::/64'],
  ['{{len .IPAM.Config}} {{len .Name}}', '2 3'],
  ['{{range .IPAM.Config}}[{{.Subnet}}]{{end}}', '[10.0.0.0/24][fd00::/64]'],
  ['{{range $i, $c := .IPAM.Config}}{{if $i}}, {{end}}{{$c.Subnet}}{{end}}', '10.0.0.0/24, fd00::/64'],
  ['{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}', 'a=1;b=2;x.y=3;'],
  ['{{range .Empty}}x{{else}}none{{end}}', 'none'],
  ['{{range .IPAM.Config}}{{$.Name}} {{end}}', 'web web '],
  ['{{if .Internal}}in{{else if eq .Count 3}}three{{else}}out{{end}}', 'three'],
  ['{{if and .Name (not .Internal)}}yes{{end}}', 'yes'],
  ['{{with .IPAM}}{{len .Config}}{{end}}{{with .Nothing}}x{{else}}-{{end}}', '2-'],
  ['{{$n := .Name}}{{$n | upper | printf "%-5s|%q" }}', 'WEB  |"<no value>"'],
  ['{{join (split "a,b" ",") "+"}} {{title "a b"}} {{lower "X"}} {{truncate "abcdef" 3}}', 'a+b A B x abc'],
  ['{{.Label "k"}}', '<k>'],
  ['a {{- .Name -}} b', 'awebb'],
  ['{{/* nothing */}}x', 'x'],
  ['{{"}}"}}{{`"`}}', '}}"'],
  ['{{print 1 true nil}}{{println}}', '1 true <nil>\n'],
  ['{{eq .Name "db" "web"}} {{ne 1 2}} {{lt 1 2}} {{ge 2 2}} {{or "" "x"}}', 'true true true true x'],
])('%s', (source, expected) => {
  expect(parseTemplate(source)(DATA)).toBe(expected)
})

test.each([
  '{{',
  '{{.Name',
  '{{}}',
  '{{nix .}}',
  '{{if .Name}}',
  '{{end}}',
  '{{range .Name}}{{else}}',
  '{{.Name | }}',
  '{{(.Name}}',
  '{{.Name)}}',
  '{{"a}}',
  '{{$x}}',
  '{{index .IPAM.Config 7}}',
  '{{index .Count 1}}',
  '{{range .Name}}x{{end}}',
  '{{.Name.Length}}',
  '{{.Name 1}}',
  '{{#}}',
  '{{range x, $y := .Labels}}{{end}}',
  '{{toString .constructor}}',
  '{{constructor}}',
])('refused: %s', source => {
  expect(() => parseTemplate(source)(DATA)).toThrow(TemplateError)
})

test('what is inherited is not to be seen', () => {
  expect(parseTemplate('{{.constructor}} {{.__proto__}} {{index . "toString"}}')({})).toBe(
    '<no value> <no value> ',
  )
})

test('fuzz: any text is a template or is refused, and nothing else happens', () => {
  const piece = fc.constantFrom(
    '{{',
    '}}',
    '.',
    'range ',
    'end',
    'if ',
    '.Name',
    '$',
    ':=',
    '|',
    '(',
    ')',
    '"',
    'json ',
    '-',
    ' ',
    'else',
    ',',
  )
  fc.assert(
    fc.property(fc.array(fc.oneof(piece, fc.string({ maxLength: 3 })), { maxLength: 12 }), parts => {
      try {
        parseTemplate(parts.join(''))(DATA)
      } catch (error) {
        expect((error as Error).name).toBe('TemplateError')
      }
    }),
    { numRuns: 2000, seed: 3 },
  )
})
