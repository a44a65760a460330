// Stands in for the intel-ipsec-mb back-end on machines that it does not know.
#include "fastpath/aead.h"

namespace braid {

void PrepareIpsecMbThread() {}
std::vector<const Aead*> IpsecMbAeads() { return {}; }

}  // namespace braid
