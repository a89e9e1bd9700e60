#include "services/state-manager/adapters/spare_space.h"

#include <fcntl.h>
#include <unistd.h>

namespace tutti::state_manager {

bool SpareSpace::Reserve() {
  if (held()) return true;
  const int descriptor = open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) return false;
  const bool reserved = posix_fallocate(descriptor, 0, static_cast<off_t>(bytes_)) == 0;
  if (!reserved) (void)ftruncate(descriptor, 0);
  close(descriptor);
  held_.store(reserved, std::memory_order_release);
  return reserved;
}

bool SpareSpace::Release() {
  if (!held_.exchange(false, std::memory_order_acq_rel)) return false;
  return truncate(file_.c_str(), 0) == 0;
}

}  // namespace tutti::state_manager
