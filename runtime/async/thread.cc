#include "runtime/async/thread.h"

#include <pthread.h>
#include <sched.h>

namespace tutti {
namespace {

// A policy that somebody else chose stays, and so it does where a sandbox refuses.
void ChangePolicy(int from, int to) {
  int policy = 0;
  sched_param parameters{};
  if (pthread_getschedparam(pthread_self(), &policy, &parameters) != 0 || policy != from) return;
  pthread_setschedparam(pthread_self(), to, &parameters);
}

}  // namespace

void NameThread(std::thread& thread, const std::string& name) {
  pthread_setname_np(thread.native_handle(), name.substr(0, 15).c_str());
}

void RunInBackground() { ChangePolicy(SCHED_OTHER, SCHED_BATCH); }

void RunInForeground() { ChangePolicy(SCHED_BATCH, SCHED_OTHER); }

}  // namespace tutti
