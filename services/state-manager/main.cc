#include <string>

#include "services/state-manager/admin.h"
#include "services/state-manager/module.h"

int main(int argc, char** argv) {
  if (argc > 1 && tutti::state_manager::IsAdminCommand(argv[1])) {
    return tutti::state_manager::AdminMain(argv[1], {argv + 2, argv + argc});
  }
  return tutti::ServiceMain(argc, argv, "state-manager", tutti::state_manager::NewStateManager);
}
