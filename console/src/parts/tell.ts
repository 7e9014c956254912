import { notifications } from '@mantine/notifications';

/** A line in the corner: that something was done, or why it was not. */
export const tell = {
  done: (message: string) => notifications.show({ message, color: 'root' }),
  failed: (message: string) => notifications.show({ message, title: 'That did not work', color: 'red', autoClose: 12_000 }),
};
