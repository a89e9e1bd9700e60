#include "services/state-manager/module.h"

int main(int argc, char** argv) {
  return tutti::ServiceMain(argc, argv, "state-manager", tutti::state_manager::NewStateManager);
}
