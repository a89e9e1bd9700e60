#include "services/monitoring/module.h"

int main(int argc, char** argv) {
  return tutti::ServiceMain(argc, argv, "monitoring", tutti::monitoring::NewMonitoring);
}
