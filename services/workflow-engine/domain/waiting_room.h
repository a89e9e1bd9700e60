// How many wait, by tenant, and whether one more may. One tenant may take eight times what it leaves free, so eight
// ninths when it is alone (the dynamic thresholds of Choudhury and Hahne, 1998): its flood leaves room for others.
#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <string>

namespace tutti::engine {

class WaitingRoom {
 public:
  // `most`: of all tenants.
  explicit WaitingRoom(size_t most) : most_(most) {}

  bool HasRoomFor(const std::string& tenant) const { return all_ < most_ && Of(tenant) < kShare * (most_ - all_); }
  size_t all() const { return all_; }
  size_t Of(const std::string& tenant) const {
    auto it = by_tenant_.find(tenant);
    return it == by_tenant_.end() ? 0 : it->second;
  }

  void Enter(const std::string& tenant) {
    ++by_tenant_[tenant];
    ++all_;
  }
  // Who was not named is one of those without a name, if there are any.
  void Leave(const std::string& tenant) {
    auto it = by_tenant_.find(tenant);
    if (it == by_tenant_.end()) {
      if (unnamed_ == 0) return;
      --unnamed_;
    } else if (--it->second == 0) {
      by_tenant_.erase(it);
    }
    --all_;
  }
  // As another counted them; `all` may be more than those whose tenant it names.
  void Assign(size_t all, std::map<std::string, size_t> by_tenant) {
    size_t named = 0;
    for (const auto& [tenant, count] : by_tenant) named += count;
    std::erase_if(by_tenant, [](const auto& tenant) { return tenant.second == 0; });
    by_tenant_ = std::move(by_tenant);
    all_ = std::max(all, named);
    unnamed_ = all_ - named;
  }

 private:
  static constexpr size_t kShare = 8;
  const size_t most_;
  size_t all_ = 0, unnamed_ = 0;
  std::map<std::string, size_t> by_tenant_;  // none is 0
};

}  // namespace tutti::engine
