// Variables of the environment laid over the tree of a configuration file, and which variable a
// value came from.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "slowpath/config.h"

namespace braid {

class Origins {
 public:
  // The variable that gave the value at `pointer` or made a place for it; empty for the file's.
  std::string Find(std::string pointer) const;

  // `variable` gave the value here and all that is under it.
  void Gave(const std::string& pointer, const std::string& variable) { given_[pointer] = variable; }
  // `variable` made the section here, but is not to blame for what is missing in it.
  void Made(const std::string& pointer, const std::string& variable) { made_[pointer] = variable; }

 private:
  std::map<std::string, std::string> given_;
  std::map<std::string, std::string> made_;
};

// A value is JSON when it reads as JSON, and text otherwise. A number in a name is an element of a
// list, the one after the last included.
void ApplyEnvironment(const Environment& environment, nlohmann::json& tree, Origins& origins,
                      std::vector<Mistake>& mistakes);

}  // namespace braid
