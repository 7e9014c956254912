// setInterval and performance. Each tick is a host operation: a run has so many, and its interval ends with them, in words.
(bridge) => {
  'use strict';
  const setInterval = (call) => (callback, delay = 0, ...values) => {
    if (typeof callback !== 'function') throw new TypeError('setInterval needs a function');
    const tick = () => {
      bridge.guarded(call, callback, values);
      if (call.timers[id] !== undefined) bridge.guarded(call, arm, []);
    };
    const arm = () => (call.timers[id] = bridge.sleep(call, Math.max(+delay || 0, 1), tick));
    let id;
    id = bridge.sleep(call, Math.max(+delay || 0, 1), tick);
    call.timers[id] = id;
    return id;
  };

  // In whole milliseconds since the call began to use it: no finer clock, for there is nothing to time but others.
  const performance = () => {
    const timeOrigin = Date.now();
    let last = 0;
    return { timeOrigin, now: () => (last = Math.max(last, Date.now() - timeOrigin)), toJSON: () => ({ timeOrigin }) };
  };

  return { setInterval, performance };
};
//# sourceURL=rootlink:timers
