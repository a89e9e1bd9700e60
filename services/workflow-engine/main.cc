#include "services/workflow-engine/module.h"

int main(int argc, char** argv) {
  return tutti::ServiceMain(argc, argv, "workflow-engine", tutti::engine::NewWorkflowEngine);
}
