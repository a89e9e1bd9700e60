// SyncWait: blocks a thread until a task has ended. For main() and tests only.
#pragma once

#include <optional>
#include <utility>

#include "runtime/async/task.h"
#include "runtime/sync/mutex.h"

namespace tutti {
namespace async_internal {

struct SyncSignal {
  Mutex mutex;
  CondVar done_cv;
  bool done = false;
  void Set() {
    MutexLock lock(mutex);
    done = true;
    done_cv.NotifyAll();
  }
  void Wait() {
    MutexLock lock(mutex);
    while (!done) done_cv.Wait(mutex);
  }
};

template <class T>
Detached RunAndSignal(Task<T> task, std::optional<T>& out, SyncSignal& signal) {
  {
    Task<T> running = std::move(task);
    out.emplace(co_await std::move(running));
  }
  signal.Set();
}
inline Detached RunAndSignal(Task<void> task, SyncSignal& signal) {
  {
    Task<void> running = std::move(task);
    co_await std::move(running);
  }
  signal.Set();
}

}  // namespace async_internal

template <class T>
T SyncWait(Task<T> task) {
  std::optional<T> out;
  async_internal::SyncSignal signal;
  async_internal::RunAndSignal<T>(std::move(task), out, signal);
  signal.Wait();
  return std::move(*out);
}

inline void SyncWait(Task<void> task) {
  async_internal::SyncSignal signal;
  async_internal::RunAndSignal(std::move(task), signal);
  signal.Wait();
}

}  // namespace tutti
