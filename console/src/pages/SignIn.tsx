import { Button, Center, PasswordInput, Stack, Text, Title } from '@mantine/core';
import { useForm } from '@mantine/form';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { api, told, words } from '../api/client';

/** What everybody sees who is not signed in. */
export function SignIn() {
  const queries = useQueryClient();
  const form = useForm({ initialValues: { token: '' } });
  const signIn = useMutation({
    mutationFn: (token: string) => told(api.POST('/v1/session', { body: { token } })),
    onSuccess: () => queries.invalidateQueries(),
    onError: (error) => form.setFieldError('token', words(error)),
  });
  return (
    <Center mih="100dvh">
      <form onSubmit={form.onSubmit(({ token }) => signIn.mutate(token))}>
        <Stack w={340}>
          <Title order={1}>Rootlink</Title>
          <Text size="sm" c="dimmed">Open the one-time link that `rootlink up` printed, or paste its token here. `rootlink status` makes another.</Text>
          <PasswordInput label="Token" {...form.getInputProps('token')} />
          <Button type="submit" loading={signIn.isPending}>Sign in</Button>
        </Stack>
      </form>
    </Center>
  );
}
