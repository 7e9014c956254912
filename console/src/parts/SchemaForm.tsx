import { JsonInput } from '@mantine/core';

/** A form made from a JSON Schema. `value` is what will be sent. */
export function SchemaForm({ value, onChange, label = 'Arguments' }: {
  schema: unknown;
  value: unknown;
  onChange: (value: unknown) => void;
  label?: string;
}) {
  return (
    <JsonInput label={label} defaultValue={JSON.stringify(value ?? {}, null, 2)} autosize minRows={3} formatOnBlur
      onChange={(text) => {
        try {
          onChange(JSON.parse(text));
        } catch {
          // not JSON yet
        }
      }} />
  );
}
