#include "cli/outcome.h"

#include <iostream>
#include <string>

namespace braid {

int Fail(std::string_view command, std::string_view why) {
  std::cerr << "braid " << command << ": " << why << '\n';
  return 1;
}

int Fail(std::string_view command, const absl::Status& why) {
  return Fail(command, std::string(why.message()));
}

int EndOutput(std::string_view command) {
  std::cout << std::flush;
  return std::cout ? 0 : Fail(command, "standard output cannot be written");
}

}  // namespace braid
